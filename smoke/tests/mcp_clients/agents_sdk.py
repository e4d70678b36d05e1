"""Runs the program for the OpenAI Agents SDK that a document shows, with calls in
the model's place.

    agents_sdk.py DOCUMENT
"""

import re
import sys
from types import SimpleNamespace

import agents
from agents.run_context import RunContextWrapper


class Runner:
    """Does what a model would ask for."""

    @staticmethod
    async def run(agent, task):
        assert task, "the document asks for something"
        tools = {tool.name: tool for tool in await agent.get_mcp_tools(RunContextWrapper(None))}
        assert {"workspace_create", "workspace_exec", "workspace_delete"} <= set(tools), tools
        for tool in tools.values():
            assert tool.description and tool.params_json_schema["type"] == "object", tool
        (server,) = agent.mcp_servers
        made = await server.call_tool("workspace_create", {"environment": "debian:12", "name": "sdk"})
        assert not made.is_error, made
        asked = {"workspace_id": "sdk", "command": "uname -s"}
        ran = await server.call_tool("workspace_exec", asked)
        said = ran.structured_content["stdout"].strip()
        await server.call_tool("workspace_delete", {"workspace_id": "sdk"})
        return SimpleNamespace(final_output=said)


agents.Runner = Runner
with open(sys.argv[1], encoding="utf-8") as document:
    (program,) = re.findall(r"```python\n(.*?)```", document.read(), re.DOTALL)
exec(compile(program, sys.argv[1], "exec"), {"__name__": "__main__"})
