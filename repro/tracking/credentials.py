"""A store's URI without its credentials, for messages, reports and links."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, quote_plus, unquote


def shown(uri: str) -> str:
    """The URI for messages and reports: no password, no token, no options of a database; a short plain login name stays."""
    if uri.startswith("sqlite:"):
        return uri
    scheme, separator, rest = uri.partition("://") if "://" in uri else ("", "", uri)
    user, at, place = rest.rpartition("@")
    place, question, _ = place.partition("?")
    name = re.match(r"[A-Za-z][\w.-]{0,19}:(?=.)", user)
    return f"{scheme}{separator}{name[0] if name else ''}{at and '***@'}{place}{question and '?***'}"


def link(uri: str) -> str:
    """The URI of a server for links to its pages: without a user part."""
    scheme, separator, rest = shown(uri).partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def hidden(uri: str, text: str) -> str:
    """A message of another library without the parts of a URI's credentials, however they are written."""
    if uri.startswith("sqlite:") or "://" not in uri:
        return text
    user, _, place = uri.partition("://")[2].rpartition("@")
    name, _, password = user.partition(":")
    options = [value for _, value in parse_qsl(place.partition("?")[2])]
    secrets = {user, password, *options, *([] if f"{name}:" in shown(uri) else [name])}
    secrets |= {form(secret) for secret in secrets for form in (unquote, quote, quote_plus)}
    text = text.replace(uri, shown(uri))
    for secret in sorted(secrets - {""}, key=len, reverse=True):
        text = re.sub(rf"(?<![\w]){re.escape(secret)}(?![\w])", "***", text)
    return text
