"""Node and npm work under the strict profile, with the host's own node on the process backend."""

import shutil
from pathlib import Path

import pytest

import ringfence
from tests.conftest import on_process

pytestmark = pytest.mark.process

NODE = """
const { Worker } = require("worker_threads"), fs = require("fs"), http = require("http");
const { execFileSync } = require("child_process");
fs.mkdirSync("/tmp/watched");
const seen = new Promise(done => fs.watch("/tmp/watched", done));
const message = "require('worker_threads').parentPort.postMessage('worker')";
const work = new Promise(done => new Worker(message, { eval: true }).on("message", done));
const served = new Promise(done => {
    const server = http.createServer((request, answer) => answer.end("served"));
    server.listen(0, "127.0.0.1", () => http.get({ port: server.address().port }, answer =>
        answer.on("data", data => done(String(data)))));
});
fs.writeFileSync("/tmp/watched/x", "1");
seen.then(() => Promise.all([work, served])).then(found => {
    console.log(...found, String(execFileSync("echo", ["child"])).trim());
    process.exit(0);
});
"""
NPM = """
set -e
mkdir -p /tmp/dep /tmp/app
cd /tmp/dep
echo '{"name": "dep", "version": "1.0.0", "main": "index.js"}' > package.json
echo 'module.exports = "from dep"' > index.js
cd /tmp/app
echo '{"name": "app", "version": "1.0.0", "dependencies": {"dep": "file:../dep"}}' > package.json
npm install --offline --no-audit --no-fund
rm -rf node_modules
npm ci --offline --no-audit --no-fund
node -p 'require("dep")'
"""


async def test_node_workers_children_watches_and_npm_ci(state_directory: Path) -> None:
    if (
        shutil.which("node", path="/usr/bin") is None
        or shutil.which("npm", path="/usr/bin") is None
    ):
        pytest.skip("node and npm are not installed in /usr")
    async with ringfence.open(
        **on_process(), env={"HOME": "/tmp"}, limits={"timeout": 120}
    ) as sandbox:
        assert "refuses" in sandbox.receipt["seccomp"].enforced
        node = await sandbox.exec(["node", "-e", NODE])
        assert node.stdout.split() == [b"worker", b"served", b"child"], node.stderr
        npm = await sandbox.exec(shell=NPM)
        assert npm.stdout.splitlines()[-1] == b"from dep", npm.stderr
