"""The short form of a certificate authority that a join token carries.

An agent that has nothing but its join token must know that it talks to the right broker before it says anything
secret. So the token ends in the first 32 hex digits (128 bits) of the SHA-256 of the broker's CA certificate (DER),
and the broker sends that certificate at the end of its TLS chain: whoever dials compares the two.
"""

import hashlib
import hmac

HEX_DIGITS = 32


def pin_of(ca_der: bytes) -> str:
    """The pin of a CA certificate: 32 lower-case hex digits."""
    return hashlib.sha256(ca_der).hexdigest()[:HEX_DIGITS]


def fits(pin: str, ca_der: bytes) -> bool:
    """Whether ``ca_der`` is the certificate that ``pin`` names."""
    return len(pin) == HEX_DIGITS and hmac.compare_digest(pin, pin_of(ca_der))
