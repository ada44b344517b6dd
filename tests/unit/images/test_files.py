"""What goes into a build, and what image files hold."""

import io
import json
import lzma
import os
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from ringfence.digest import Descriptor, Digest
from ringfence.digest.store import Store
from ringfence.errors import ImageError, InvalidSpecError
from ringfence.images import context, ignore, layouts
from ringfence.images.ignore import Automaton, Rules, parts_of

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
        ("a**b", "axb", False),
        ("a**b", "ax/b", True),
        ("**log", "mylog/x", True),
        ("**/log", "mylog", False),
        ("**/*log", "a/mylog", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a/**/b", "ab", False),
        ("a**", "abc/d", True),
        (r"\*", "*", True),
        (r"\*", "a", False),
        (r"[\]a]x", "]x", True),
        ("[^a]b", "/b", True),
        ("\ufeffa", "a", True),
        ("a\r\n", "a", True),
        (" #a", "#a", True),
        ("!!a\n!a", "!a", False),
        ("a\x0cb", "a", False),
        ("é?", "éé", True),
        (".\n/", "a", False),
        ("a*\n/!ab", "ab", False),
        ("// ?", "a", True),
        ("// ?", " a", False),
    ],
)
def test_dockerignore_is_read_as_docker_reads_it(text: str, name: str, verdict: bool) -> None:
    assert Rules(text).ignored(name) is verdict


@pytest.mark.parametrize(
    "text", ["[", "[]", "[]a]", "[a", "[-a]", "[a-c-]x", "[b-a]", "a\\", "!", "! ", "!/", "!//"]
)
def test_a_broken_pattern_is_refused(text: str) -> None:
    with pytest.raises(InvalidSpecError, match=r"^\.dockerignore: "):
        Rules(text)


@pytest.mark.parametrize(
    "pattern", ["*a" * 500 + "b", "**/a/" * 500 + "b", "?" * 5000 + "*b", "***" * 500 + "b*a"]
)
def test_no_pattern_takes_more_steps_than_a_path_has_letters(pattern: str) -> None:
    name = "a/" * 100 + "a" * 200
    automaton = Automaton(parts_of(pattern))
    assert not automaton.covers(name)
    assert 0 < len(automaton.steps) <= len(name)


def test_what_is_remembered_of_a_pattern_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ignore, "_MOST_KNOWN", 10)
    automaton = Automaton(parts_of("*a?b*"))
    for letter in "cdefgh":
        assert automaton.covers(f"{letter}a{letter}b/{letter}")
        assert not automaton.covers(letter * 30)
        assert len(automaton.steps) <= 10


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
    for wrong in ("missing", "../Dockerfile", str(tmp_path / "Dockerfile")):
        with pytest.raises(InvalidSpecError):
            context.pack(tmp_path, io.BytesIO(), wrong)


def test_what_is_taken_back_is_there_however_deep_and_so_is_the_dockerfile(tmp_path: Path) -> None:
    for name in ("a/b/keep", "a/b/drop", "a/build/Dockerfile", "c/drop", "c/d/keep"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / ".dockerignore").write_text("a\nc\n!a/b/keep\n")

    def packed() -> set[str]:
        out = io.BytesIO()
        context.pack(tmp_path, out, "a/build/Dockerfile")
        out.seek(0)
        with tarfile.open(fileobj=out) as archive:
            return set(archive.getnames())

    assert packed() == {".dockerignore", "a/b/keep", "a/build/Dockerfile"}
    (tmp_path / ".dockerignore").write_text("a\nc\n!**/keep\n")
    assert packed() == {".dockerignore", "a/b/keep", "a/build/Dockerfile", "c/d/keep"}


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
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 5
    names = (long_name.tobuf(tarfile.GNU_FORMAT) + b"name".ljust(512, b"\0")) * 3000
    packed = lzma.compress(os.urandom(1000) + bytes(9240))
    sparse = tarfile.TarInfo("sparse")
    sparse.size, sparse.pax_headers = 512, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    header = sparse.tobuf(tarfile.PAX_FORMAT)
    for content in (b"", b"x" * 5000, names, packed, header + b"no number\n".ljust(512, b"\0")):
        (tmp_path / "broken").write_bytes(content)
        with pytest.raises(ImageError):
            layouts.kind_of(tmp_path / "broken")
    os.mkfifo(tmp_path / "fifo")
    for name in ("missing", "fifo"):
        with pytest.raises(ImageError):
            layouts.kind_of(tmp_path / name)


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """An archive of 5,000 empty members, which is a layout's, too."""
    path = tmp_path / "crowded.tar"
    with tarfile.open(path, "w") as archive:
        for name in (*map(str, range(4999)), "oci-layout"):
            archive.addfile(tarfile.TarInfo(name))
    return path


def test_the_members_of_an_archive_are_not_held(crowded: Path, tmp_path: Path) -> None:
    """Many millions of empty ones make a small file, and took all memory."""
    for look in (layouts.kind_of, lambda path: layouts.unpack(path, tmp_path)):
        tracemalloc.start()
        try:
            look(crowded)
            assert tracemalloc.get_traced_memory()[1] < 5000 * 200
        finally:
            tracemalloc.stop()


def test_an_archive_with_more_members_than_any_image_has_is_refused(
    crowded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layouts, "MOST_MEMBERS", 5000)
    assert layouts.kind_of(crowded) == "oci-archive"
    monkeypatch.setattr(layouts, "MOST_MEMBERS", 4999)
    with pytest.raises(ImageError, match="over 4999 members"):
        layouts.kind_of(crowded)


def add(store: Store, kind: str, data: bytes) -> dict[str, object]:
    return Descriptor(kind, store.put(data), len(data)).to_dict()


@pytest.mark.parametrize("manifests", [[5], {"a": 1}, 7, [{"platform": "linux"}]])
def test_an_index_of_another_shape_is_refused(tmp_path: Path, manifests: object) -> None:
    store = Store(tmp_path / "store")
    index = json.dumps({"mediaType": INDEX, "manifests": manifests}).encode()
    store.tag("all", Descriptor(INDEX, store.put(index), len(index)))
    with pytest.raises(ImageError, match="a descriptor cannot be used"):
        layouts.find(store.root, "all", architecture="amd64")


@pytest.mark.parametrize("document", [b'{"a":' + b"[" * 200_000, b"1" * 5000, b"\xff", b""])
def test_a_document_that_is_no_json_is_refused(tmp_path: Path, document: bytes) -> None:
    store = Store(tmp_path / "store")
    store.tag("odd", Descriptor(MANIFEST, store.put(document), len(document)))
    with pytest.raises(ImageError):
        layouts.find(store.root)
    (store.root / "index.json").write_bytes(document)
    with pytest.raises(ImageError, match=r"index\.json"):
        layouts.find(store.root)


def test_a_digest_that_cannot_be_made_here_is_refused(tmp_path: Path) -> None:
    """What it names could be anything."""
    odd = Digest("odd+one:abc")
    (tmp_path / "blobs" / "odd+one").mkdir(parents=True)
    (tmp_path / "blobs" / "odd+one" / "abc").write_bytes(b"{}")
    with pytest.raises(ImageError, match="odd"):
        layouts.read(tmp_path, Descriptor(MANIFEST, odd, 2))


def test_what_is_no_file_in_a_layout_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    manifest = store.put(b"{}")
    store.tag("odd", Descriptor(MANIFEST, manifest, 2))
    for place in (store.blob_path(manifest), store.root / "index.json"):
        place.unlink()
        os.mkfifo(place)
        with pytest.raises(ImageError, match="no regular file"):
            layouts.find(store.root)
        place.unlink()
        place.mkdir()
        with pytest.raises(ImageError, match="no regular file"):
            layouts.find(store.root)
    place.rmdir()
    with place.open("wb") as stream:
        stream.truncate(20 << 20)
    with pytest.raises(ImageError, match="too large for an index"):
        layouts.find(store.root)


def test_a_directory_that_cannot_be_read_is_an_error_unless_it_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in it would be missing in what is built."""
    (tmp_path / "Dockerfile").write_text("FROM scratch")
    (tmp_path / "closed").mkdir()
    real = os.scandir

    def scandir(path: str) -> object:
        if os.path.basename(path) == "closed":  # noqa: PTH119
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError):
        context.pack(tmp_path, io.BytesIO())
    with pytest.raises(PermissionError):
        context.pack_tree(tmp_path, io.BytesIO())
    (tmp_path / ".dockerignore").write_text("closed")
    context.pack(tmp_path, io.BytesIO())


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
        blobs = [f"blobs/sha256/{one.digest.encoded}" for one in (found.config, found.descriptor)]
        assert archive.getnames() == [*blobs, "manifest.json", "index.json", "oci-layout"]
        (entry,) = json.load(archive.extractfile("index.json"))["manifests"]
        assert entry["digest"] == found.descriptor.digest
        assert entry["annotations"] == {"io.containerd.image.name": "docker.io/library/name:tag"}
    store.delete(found.config.digest)
    with pytest.raises(ImageError, match="lacks"):
        layouts.archive(store.root, found, io.BytesIO(), None)
    store.delete(found.descriptor.digest)
    with pytest.raises(ImageError, match="lacks"):
        layouts.find(store.root, "all", architecture="arm64")


def test_of_several_images_in_a_layout_the_one_for_this_machine_is_taken(tmp_path: Path) -> None:
    """As of those in an index: programs write the images of several machines side by side."""
    store = Store(tmp_path / "store")
    entries = []
    for architecture in ("arm64", "amd64", "amd64"):
        config = add(store, "config", f"{architecture} {len(entries)}".encode())
        document = {"mediaType": MANIFEST, "config": config, "layers": []}
        entry = add(store, MANIFEST, json.dumps(document).encode())
        entries.append({**entry, "platform": {"os": "linux", "architecture": architecture}})
    write = (store.root / "index.json").write_text
    write(json.dumps({"manifests": entries[:2]}))
    found = layouts.find(store.root, architecture="arm64")
    assert found.config.digest == Digest.from_bytes(b"arm64 0")
    assert layouts.find(store.root).config.digest == Digest.from_bytes(b"amd64 1")
    with pytest.raises(ImageError, match="holds 2 instead of one"):
        layouts.find(store.root, architecture="s390x")
    write(json.dumps({"manifests": entries}))
    with pytest.raises(ImageError, match="holds 2 instead of one"):
        layouts.find(store.root)
    write(json.dumps({"manifests": [*entries[:2], {**entries[0], "platform": 5}]}))
    assert layouts.find(store.root).config.digest == Digest.from_bytes(b"amd64 1")


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
