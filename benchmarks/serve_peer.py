"""The peer of serve.py: a GPT-2 of transformers with random weights, whose requests are drawn in naive batches.

python benchmarks/serve_peer.py '{"n_layers": 4, "n_heads": 4, "d_model": 96, "vocab": 27, "context": 16, ...}'
"""

import asyncio
import json
import socket
import sys
import time
from typing import Any

import torch
import transformers
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

MOST = 64
"""Requests of a batch."""


def main() -> None:
    """Serve until the process is ended."""
    shape = json.loads(sys.argv[1])
    config = transformers.GPT2Config(
        vocab_size=shape["vocab"],
        n_positions=max(shape["context"], shape["prompt"] + shape["tokens"]),
        n_embd=shape["d_model"],
        n_layer=shape["n_layers"],
        n_head=shape["n_heads"],
        bos_token_id=None,
        eos_token_id=None,
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    waiting: asyncio.Queue[asyncio.Future[int]] = asyncio.Queue()

    def draw(count: int) -> int:
        tokens = torch.randint(0, shape["vocab"], (count, shape["prompt"]))
        with torch.inference_mode():
            made = model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                do_sample=True,
                max_new_tokens=shape["tokens"],
                min_new_tokens=shape["tokens"],
                pad_token_id=0,
            )
        return int(made.shape[1] - tokens.shape[1])

    async def work() -> None:
        while True:
            batch = [await waiting.get()]
            while not waiting.empty() and len(batch) < MOST:
                batch.append(waiting.get_nowait())
            count = await asyncio.to_thread(draw, len(batch))
            for one in batch:
                one.set_result(count)

    async def complete(request: Request) -> StreamingResponse:
        await request.json()
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        await waiting.put(answer)
        count = await answer

        async def events() -> Any:
            tree = {"choices": [{"index": 0, "text": "x" * count}], "usage": {"completion_tokens": count}}
            yield f"data: {json.dumps({**tree, 'created': int(time.time())})}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    async def serve() -> None:
        app = Starlette(routes=[Route("/v1/completions", complete, methods=["POST"])])
        working = asyncio.create_task(work())
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as bound:
            bound.bind(("127.0.0.1", 0))
            bound.listen(256)
            print(f"serving on http://127.0.0.1:{bound.getsockname()[1]}", flush=True)
            await uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off")).serve([bound])
        working.cancel()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
