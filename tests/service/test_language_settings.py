from __future__ import annotations

import pytest

from graybox.errors import Invalid
from graybox.service.language_settings import LanguageSettings, language_settings


def test_nothing_is_set() -> None:
    assert language_settings({}) is None
    # A key that is there for something else sends nobody's class names anywhere.
    assert (
        language_settings({"OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": "http://x/v1", "GRAYBOX_LLM_KEY": "k"}) is None
    )


@pytest.mark.parametrize(
    ("url", "place", "path"),
    [
        ("http://127.0.0.1:11434/v1", "http://127.0.0.1:11434", "/v1/chat/completions"),
        ("https://api.example.com/v1/", "https://api.example.com", "/v1/chat/completions"),
        ("http://[::1]:8000", "http://[::1]:8000", "/chat/completions"),
    ],
)
def test_an_endpoint(url: str, place: str, path: str) -> None:
    found = language_settings({"GRAYBOX_LLM_URL": url, "GRAYBOX_LLM_MODEL": "m", "GRAYBOX_LLM_KEY": " sk-secret "})
    assert found is not None
    assert (found.place, found.path, found.key) == (place, path, "sk-secret")
    assert "sk-secret" not in repr(found) + str(found)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"URL": "http://x"}, "GRAYBOX_LLM_MODEL is not"),
        ({"MODEL": "m"}, "GRAYBOX_LLM_URL is not"),
        ({"URL": "x/v1", "MODEL": "m"}, "GRAYBOX_LLM_URL"),
        ({"URL": "ftp://x/v1", "MODEL": "m"}, "GRAYBOX_LLM_URL"),
        ({"URL": "file:///etc/passwd", "MODEL": "m"}, "GRAYBOX_LLM_URL"),
        ({"URL": "http://name:hidden@x/v1", "MODEL": "m"}, "GRAYBOX_LLM_URL"),
        ({"URL": "http://x/v1?key=hidden", "MODEL": "m"}, "GRAYBOX_LLM_URL"),
        ({"URL": "http://x:port/v1", "MODEL": "m"}, "GRAYBOX_LLM_URL"),
        ({"URL": "http://x:99999/v1", "MODEL": "m"}, "GRAYBOX_LLM_URL"),
        ({"URL": "http://[::1/v1", "MODEL": "m"}, "GRAYBOX_LLM_URL"),
        ({"URL": "http://x/v1 y", "MODEL": "m"}, "GRAYBOX_LLM_URL"),
        ({"URL": "http://x/v1\r\nX: y", "MODEL": "m"}, "GRAYBOX_LLM_URL"),
        ({"URL": "http://x/v1", "MODEL": "m\n"}, ""),
        ({"URL": "http://x/v1", "MODEL": "m\x00n"}, "GRAYBOX_LLM_MODEL"),
        ({"URL": "http://x/v1", "MODEL": "m", "KEY": "hidden\r\nX: y"}, "GRAYBOX_LLM_KEY"),
    ],
)
def test_what_makes_no_sense_is_named_and_no_secret_told(variables: dict[str, str], named: str) -> None:
    environment = {f"GRAYBOX_LLM_{name}": value for name, value in variables.items()}
    if not named:  # white space around it is taken off
        assert isinstance(language_settings(environment), LanguageSettings)
        return
    with pytest.raises(Invalid) as error:
        language_settings(environment)
    assert named in str(error.value) and "hidden" not in str(error.value)
