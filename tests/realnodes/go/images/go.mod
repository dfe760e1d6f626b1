module lendmesh.dev/tests/realnodes/images

go 1.26
