"""What a Dockerfile starts from is known before it is built."""

import pytest

from ringfence.images.dockerfile import bases

NAMED = "docker.io/library/"


@pytest.mark.parametrize(
    ("text", "arguments", "found"),
    [
        ("", {}, []),
        ("FROM debian", {}, [f"{NAMED}debian:latest"]),
        ("from --platform=linux/amd64 a.example:5000/x:1 as Base", {}, ["a.example:5000/x:1"]),
        ("FROM a AS b\nFROM B\nFROM scratch\nFROM b AS c", {}, [f"{NAMED}a:latest"]),
        ("FROM a\nCOPY --from=0 /x /\nCOPY --chown=1 --from=b.example/y /x /", {},
         [f"{NAMED}a:latest", "b.example/y:latest"]),
        ("ARG V=1\nFROM x:$V", {}, [f"{NAMED}x:1"]),
        ("ARG V=1\nFROM x:${V}", {"V": "2"}, [f"{NAMED}x:2"]),
        ("ARG R=a.example P='p'\nARG N=\"$R/q\"\nFROM ${N}:${T:-t}${P:+z}", {},
         ["a.example/q:tz"]),
        ("FROM x\nARG V=1\nFROM y:$V", {"V": "2"}, [f"{NAMED}x:latest"]),
        ("FROM $UNDECLARED", {"UNDECLARED": "x"}, []),
        ("# FROM a\nFROM \\\n# between\n\n  b:1 \\\n AS c\nRUN echo \\\nFROM d", {},
         [f"{NAMED}b:1"]),
        ("# escape=`\nFROM `\n a:1", {}, [f"{NAMED}a:1"]),
        ("FROM\nFROM Not/Lower\nFROM x@sha256:12", {}, []),
        (f"FROM x@sha256:{'a' * 64}", {}, [f"{NAMED}x@sha256:{'a' * 64}"]),
        ("FROM x:1\nFROM x:1", {}, [f"{NAMED}x:1"]),
        ("ARG\tV=1\nFROM\t--platform=a  x:$V\tas  y\nFROM\ty", {}, [f"{NAMED}x:1"]),
    ],
)  # fmt: skip
def test_the_images_that_stages_begin_with_or_copy_from_are_found(
    text: str, arguments: dict[str, str], found: list[str]
) -> None:
    assert [str(reference) for reference in bases(text, arguments)] == found
