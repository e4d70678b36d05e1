"""An agent's loop through the official client library, which holds every answer
against the schema that the server promised.

story.py PYRO MODE SEED ROOT: in MODE "legacy" the client greets the server, as
up to revision 2025-11-25; in "auto" it asks what the server can and greets no
more. SEED is a directory below ROOT.
"""

import asyncio
import os
import sys

from mcp import Client, StdioServerParameters

PYRO, MODE, SEED, ROOT = sys.argv[1:]
REVISION = {"legacy": "2025-11-25", "auto": "2026-07-28"}[MODE]


def server(profile):
    words = ["mcp", "serve", "--profile", profile, "--root", ROOT]
    return StdioServerParameters(command=PYRO, args=words, env=dict(os.environ))


def text(result):
    return result.content[0].text


async def ask(client, tool, **arguments):
    """The structured answer of a call that must succeed."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, f"{tool}: {text(result)}"
    assert text(result).strip(), f"{tool} says nothing to a reader"
    return result.structured_content


async def refused(client, tool, words, **arguments):
    """The text of a call that must fail, and says what to do next."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error and result.structured_content is None, f"{tool}: {result}"
    assert words in text(result) and "next step: " in text(result), text(result)


async def work(client):
    """From nothing to a workspace in which commands run; its id."""
    heard = []

    async def progress(done, total, message):
        heard.append((done, message))

    seeded = {"environment": "debian:12", "seed_path": SEED, "name": f"story-{MODE}"}
    created = await client.call_tool("workspace_create", seeded, progress_callback=progress)
    assert not created.is_error, text(created)
    workspace = created.structured_content["workspace_id"]
    steps = [done for done, _ in heard]
    assert steps and steps == sorted(set(steps)), f"progress goes forward: {heard}"
    await refused(client, "workspace_create", "story-", **seeded)

    run = lambda command, **more: ask(
        client, "workspace_exec", workspace_id=workspace, command=command, **more
    )
    assert (await run("cat hello.txt; id -un"))["stdout"] == "hello\nroot\n"
    failed = await run(["sh", "-c", "echo why >&2; exit 7"])
    assert (failed["exit_code"], failed["stderr"]) == (7, "why\n"), failed

    # P4: calls run at the same time, whatever order they end in.
    order = []

    async def one(seconds):
        await run(f"sleep {seconds}")
        order.append(seconds)

    await asyncio.gather(one(4), one(0))
    assert order == [0, 4], order

    long = await client.call_tool(
        "workspace_exec", {"workspace_id": workspace, "command": "seq 200000"}
    )
    assert len(text(long)) < 34_000 and "200000" in text(long), len(text(long))

    # What takes longer than a client waits goes on by itself.
    yielded = await run("sleep 3; echo done", yield_seconds=1)
    process = {"workspace_id": workspace, "process_id": yielded["process_id"]}
    said, cursor = "", 0
    while "done" not in said:
        polled = await ask(client, "process_poll", stdout_cursor=cursor, **process)
        said, cursor = said + polled["stdout"], polled["stdout_next_cursor"]
    return workspace


async def main():
    async with Client(server("workspace-full"), mode=MODE) as client:
        assert client.protocol_version == REVISION, client.protocol_version
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert tools["workspace_list"].annotations.read_only_hint
        assert tools["workspace_delete"].annotations.destructive_hint
        await refused(client, "workspace_exec", "no-such", workspace_id="no-such", command="x")
        for outside in ["/etc", "..", os.path.join(SEED, "..", "..")]:
            await refused(
                client,
                "workspace_create",
                "outside the roots",
                environment="debian:12",
                seed_path=outside,
            )
        workspace = await work(client)

    # The server is gone; the workspace is not.
    async with Client(server("workspace-core"), mode=MODE) as client:
        await client.list_tools()
        listed = (await ask(client, "workspace_list"))["workspaces"]
        assert [(w["workspace_id"], w["state"]) for w in listed] == [(workspace, "running")]
        this = {"workspace_id": workspace}
        await ask(client, "workspace_file_write", **this, path="new", text="one\ntwo\n")
        await ask(client, "workspace_file_edit", **this, path="new", old="two", new="2")
        read = await ask(client, "workspace_file_read", **this, path="/workspace/new")
        assert read["content"] == "one\n2\n", read
        logs = await ask(client, "workspace_logs", **this)
        assert logs["count"] == len(logs["entries"]), logs
        missing = await client.call_tool("workspace_file_read", {**this, "path": "nowhere"})
        assert missing.is_error and "/workspace/nowhere" in text(missing), text(missing)

        review = await ask(client, "workspace_diff", **this)
        assert "+one\n+2\n" in review["patch"], review
        out = os.path.join(ROOT, f"out-{MODE}")
        await refused(
            client, "workspace_export", "outside the roots", **this, path="new", output_path="/out"
        )
        await ask(client, "workspace_export", **this, path="new", output_path=out)
        with open(out, encoding="utf-8") as exported:
            assert exported.read() == "one\n2\n"
        await ask(client, "workspace_reset", **this)
        await ask(client, "workspace_patch_apply", **this, patch=review["patch"])
        await ask(client, "workspace_sync_push", **this, source_path=SEED, dest="pushed")
        listed = await ask(client, "workspace_exec", **this, command="cat new pushed/hello.txt")
        assert listed["stdout"] == "one\n2\nhello\n", listed
        await ask(client, "workspace_reset", **this)
        back = await ask(client, "workspace_exec", **this, command="cat hello.txt; ls")
        assert back["stdout"] == "hello\nhello.txt\n", back
        await ask(client, "workspace_delete", **this)
        await refused(client, "workspace_exec", workspace, **this, command="true")


asyncio.run(main())
