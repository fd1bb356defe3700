"""Locales and encodings: in none of them is a traceback, and none of them changes what is signed."""

from __future__ import annotations

import json

import pytest

from support.shell import Done, Shell

KEY = "sk-KEY-0123456789"
LOCALES = {
    "C": {"LC_ALL": "C"},
    "C without UTF-8": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "POSIX without UTF-8": {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "ascii, strict": {"PYTHONIOENCODING": "ascii:strict"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "Turkish": {"LANG": "tr_TR.UTF-8", "LC_ALL": "tr_TR"},
    "no UTF-8 mode": {"PYTHONUTF8": "0"},
    "a locale that does not exist": {"LC_ALL": "xx_YY.UTF-8"},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    shell = Shell(tmp_path_factory.mktemp("locales"))
    assert shell.presign("init").code == 0
    own = ("--upstream", "http://127.0.0.1:9", "--auth", "bearer")
    assert shell.presign("connections", "add", "conn_a", *own, stdin=KEY).code == 0
    return shell


def run(home: Shell, *argv: str, **env: str) -> Done:
    """Run a process of its own: the encoding of arguments and streams is settled at its start."""
    child = home.start(*argv, **env)
    out, err = child.communicate(timeout=120)
    return Done(child.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


@pytest.mark.parametrize("locale", LOCALES)
def test_no_locale_is_a_traceback(locale: str, home: Shell) -> None:
    url = "http://127.0.0.1:8080/api/proxy/conn_a/v1/\u00fc\u20ac?X-Presign-Expires=1"
    for argv, codes in (
        (("sign", "--help"), (0,)),
        (("sign", "conn_a", "v1/\u00fc\u20ac"), (0, 2)),
        (("sign", "conn_a", "v1/\u00fc\u20ac", "--json"), (0, 2)),
        (("explain", url), (1, 2)),
        (("convert", "\u20ac"), (1, 2)),
        (("s\u0131gn",), (2,)),
        (("connections", "show", "conn_\u0130"), (1, 2)),
        (("sign", "conn_a", "v1/I\u0130i\u0131", "--methods", "patch\u0131"), (0, 1, 2)),
    ):
        done = run(home, *argv, **LOCALES[locale])
        assert done.code in codes, (argv, done.all)
        assert "Traceback" not in done.all, (argv, done.all)
        assert "UnicodeEncodeError" not in done.all


def test_upper_case_does_not_depend_on_the_locale(home: Shell) -> None:
    done = run(home, "sign", "conn_a", "v1/i", "--methods", "patch,link", "--json", **LOCALES["Turkish"])
    assert json.loads(done.out)["methods"] == ["LINK", "PATCH"]
