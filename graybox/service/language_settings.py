"""Which language model makes queries of questions, read from the environment. Free of torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from graybox.errors import Invalid

URL, MODEL, KEY = "GRAYBOX_LLM_URL", "GRAYBOX_LLM_MODEL", "GRAYBOX_LLM_KEY"
HOW = (
    f"set {URL} (the base of an OpenAI-compatible API, such as http://127.0.0.1:11434/v1 or https://api.openai.com/v1) "
    f"and {MODEL} (the model's name there) and, where it needs one, {KEY} in the environment of the backend, and start "
    "it again"
)


@dataclass(frozen=True)
class LanguageSettings:
    """scheme: "http" or "https". port: None, that of the scheme. path: of POST .../chat/completions. key: may be empty;
    no text that is shown or logged has it."""

    scheme: str
    host: str
    port: int | None
    path: str
    model: str
    key: str = field(default="", repr=False)

    @property
    def place(self) -> str:
        """The endpoint's address, for people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port is None else f":{self.port}")


def language_settings(environment: Mapping[str, str] | None = None) -> LanguageSettings | None:
    """What GRAYBOX_LLM_URL, GRAYBOX_LLM_MODEL and GRAYBOX_LLM_KEY say; None where neither URL nor model is set.

    Variables of other tools, such as OPENAI_API_KEY, are not looked at: nobody's class names travel to a service
    because of a key that is there for something else. Raises Invalid, naming the variable (never the key's value), for
    what makes no sense.
    """
    env = os.environ if environment is None else environment
    url, model, key = (env.get(name, "").strip() for name in (URL, MODEL, KEY))
    if not url and not model:
        return None
    if not url or not model:
        raise Invalid(f"{URL if url else MODEL} is set, but {MODEL if url else URL} is not; {HOW}")
    if not all(33 <= ord(char) <= 126 for char in key):
        raise Invalid(f"{KEY} holds a character that is not visible ASCII, or a space")
    if not model.isprintable() or len(model) > 200:
        raise Invalid(f"{MODEL} is the name of a model, at most 200 printable characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Invalid(f"{URL} is no address; {HOW}") from None
    fits = parts.scheme in ("http", "https") and parts.hostname and url.isascii() and url.isprintable()
    # The address is shown in messages, so that there must be no secret in it.
    if not fits or " " in url or parts.query or parts.fragment or "@" in parts.netloc:
        raise Invalid(f"{URL} is http(s)://HOST[:PORT][/PATH], without a name, password, ? or #; {HOW}")
    path = parts.path.rstrip("/") + "/chat/completions"
    return LanguageSettings(parts.scheme, str(parts.hostname), port, path, model, key)
