"""What goes into a build, and what image files hold."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from ringfence.digest import Descriptor, Digest
from ringfence.digest.store import Store
from ringfence.errors import ImageError, InvalidSpecError
from ringfence.images import context, layouts

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


@pytest.mark.parametrize(
    ("text", "name", "verdict"),
    [
        ("secret", "secret", True),
        ("secret", "secret/key", True),
        ("secret", "a/secret", False),
        ("**/secret", "a/b/secret", True),
        ("**/secret", "secret", True),
        ("*.log", "x.log", True),
        ("*.log", "a/x.log", False),
        ("a/**", "a/b/c", True),
        ("/a/", "a", True),
        ("./a/../b", "b", True),
        ("file?", "file1", True),
        ("file?", "file", False),
        ("[ab]x", "bx", True),
        ("[^ab]x", "cx", True),
        ("# a comment\n\n", "# a comment", False),
        ("*\n!keep", "keep", False),
        ("*\n!keep", "other", True),
        ("a\n!a/b", "a/b", False),
        ("!a\na", "a", True),
        ("a.b", "axb", False),
    ],
)
def test_dockerignore_is_read_as_docker_reads_it(text: str, name: str, verdict: bool) -> None:
    assert context.ignored(context.rules_of(text), name) is verdict


def test_a_context_holds_what_is_not_ignored_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch")
    (tmp_path / ".dockerignore").write_text("Dockerfile\n.git\n")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("token")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x").write_text("x")
    (tmp_path / "link").symlink_to("/etc/passwd")
    out = io.BytesIO()
    context.pack(tmp_path, out)
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        members = {member.name: member for member in archive}
    assert sorted(members) == [".dockerignore", "Dockerfile", "link", "sub", "sub/x"]
    assert members["link"].issym()
    assert {member.uid for member in members.values()} == {0}
    for wrong in ("missing", "../Dockerfile"):
        with pytest.raises(InvalidSpecError):
            context.pack(tmp_path, io.BytesIO(), wrong)


def test_what_a_path_holds_is_told_by_what_is_in_it(tmp_path: Path) -> None:
    assert layouts.kind_of(Store(tmp_path / "store").root) == "oci"
    assert layouts.kind_of(tmp_path) == "tree"
    for kind, name in (
        ("docker", "manifest.json"),
        ("oci-archive", "./oci-layout"),
        ("rootfs", "etc"),
    ):
        path = tmp_path / f"{kind}.tar"
        with tarfile.open(path, "w") as archive:
            archive.addfile(tarfile.TarInfo(name))
        assert layouts.kind_of(path) == kind
    for content in (b"", b"x" * 5000):
        (tmp_path / "broken").write_bytes(content)
        with pytest.raises(ImageError):
            layouts.kind_of(tmp_path / "broken")
    with pytest.raises(ImageError):
        layouts.kind_of(tmp_path / "missing")


def add(store: Store, kind: str, data: bytes) -> dict[str, object]:
    return Descriptor(kind, store.put(data), len(data)).to_dict()


def test_an_index_is_followed_to_this_machines_image(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    entries = []
    for architecture in ("arm64", "amd64"):
        config = add(store, "config", architecture.encode())
        document = {"mediaType": MANIFEST, "config": config, "layers": []}
        entry = add(store, MANIFEST, json.dumps(document).encode())
        entries.append({**entry, "platform": {"os": "linux", "architecture": architecture}})
    index = json.dumps({"mediaType": INDEX, "manifests": entries}).encode()
    store.tag("all", Descriptor(INDEX, store.put(index), len(index)))
    found = layouts.find(store.root, "all", architecture="arm64")
    assert found.config.digest == Digest.from_bytes(b"arm64")
    with pytest.raises(ImageError, match="nothing for linux/s390x"):
        layouts.find(store.root, architecture="s390x")
    out = io.BytesIO()
    layouts.archive(store.root, found, out, "name:tag")
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        assert archive.getnames() == [
            f"{Digest.from_bytes(b'arm64').encoded}.json",
            "manifest.json",
        ]
    store.delete(found.config.digest)
    with pytest.raises(ImageError, match="lacks"):
        layouts.archive(store.root, found, io.BytesIO(), None)
    store.delete(found.descriptor.digest)
    with pytest.raises(ImageError, match="lacks"):
        layouts.find(store.root, "all", architecture="arm64")


def test_an_archive_puts_nothing_outside_the_layout(tmp_path: Path) -> None:
    path = tmp_path / "evil.tar"
    good = Digest.from_bytes(b"x")
    with tarfile.open(path, "w") as archive:
        for name in ("../escape", "blobs/sha256/../../../escape", "/abs", "blobs/sha256/short",
                     f"blobs/sha256/{good.encoded}", "oci-layout", "extra"):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
        link = tarfile.TarInfo("index.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    into = tmp_path / "into"
    into.mkdir()
    layouts.unpack(path, into)
    found = sorted(str(file.relative_to(into)) for file in into.rglob("*") if file.is_file())
    assert found == [f"blobs/sha256/{good.encoded}", "oci-layout"]
    assert not (tmp_path / "escape").exists()
