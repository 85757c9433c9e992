"""Serve a finished run over HTTP: `pip install fastapi uvicorn`; `python examples/serve.py results/toy/SASRec/2024`.

curl -X POST 127.0.0.1:8000/recommend -H 'content-type: application/json' -d '{"items": ["i1", "i2"], "k": 5}'
"""

import sys

import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

import hellm_recbole
from hellm_recbole.errors import HellmError


class Request(BaseModel):
    """A history, oldest item first, and the length of the list."""

    items: list[str]
    k: int = 10


app = FastAPI(title="Recommendations")
model = hellm_recbole.load_run(sys.argv[1])


@app.post("/recommend")
async def recommend(request: Request) -> list[dict]:  # async: one request at a time, for the model has one buffer
    """Return the k best items after a history."""
    try:
        lists = model.recommend(histories=[request.items], k=request.k)
    except HellmError as error:
        raise HTTPException(422, str(error)) from error
    return lists[["rank", "item_id", "score"]].to_dict("records")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]) if len(sys.argv) > 2 else 8000)
