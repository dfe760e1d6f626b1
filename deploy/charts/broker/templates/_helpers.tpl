{{- define "broker.labels" -}}
app.kubernetes.io/name: lendmesh-broker
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: lendmesh
{{- end }}

{{- define "broker.selector" -}}
app.kubernetes.io/name: lendmesh-broker
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "broker.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "broker.scheme" -}}
{{ eq .Values.tls.mode "off" | ternary "http" "https" }}
{{- end }}

{{- define "broker.host" -}}
lendmesh-broker.{{ .Release.Namespace }}.svc
{{- end }}

{{- define "broker.names" -}}
{{- $own := list "lendmesh-broker" (printf "lendmesh-broker.%s" .Release.Namespace) (include "broker.host" .) (printf "%s.cluster.local" (include "broker.host" .)) "localhost" "127.0.0.1" -}}
{{ concat $own .Values.tls.names | uniq | join "," }}
{{- end }}
