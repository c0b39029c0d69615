"""Asks a running `lolm serve` with the clients that others use, unmodified: OpenAI's library and lm-evaluation-harness.

    serve_clients.py URL LOSS WORD...

LOSS is the mean loss that `lolm eval` found for the text of WORD..., which the harness must find too.
"""
import json
import pathlib
import sys
import tempfile

import lm_eval
import openai

url, loss, text = sys.argv[1], float(sys.argv[2]), " ".join(sys.argv[3:])


def with_openai():
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="sk-none")
    model = client.models.list().data[0].id
    ask = dict(model=model, prompt="the quick", max_tokens=12, temperature=0)
    whole = client.completions.create(**ask, logprobs=2, extra_body={"lolm": {"trace": True}})
    parts = list(client.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    assert "".join(p.choices[0].text for p in parts if p.choices) == whole.choices[0].text
    assert parts[-1].usage.completion_tokens == whole.usage.completion_tokens == 12
    assert whole.usage.prompt_tokens_details.cached_tokens == 0 and whole.choices[0].finish_reason == "length"
    assert len(whole.choices[0].logprobs.token_logprobs) == 12
    gates = [t["gate"]["mean"] for t in whole.choices[0].lolm["tokens"]]
    assert all(0 < g < 1 for g in gates)
    two = client.completions.create(model=model, prompt=["a", [98, 99]], n=2, max_tokens=3, seed=1)
    assert [c.index for c in two.choices] == [0, 1, 2, 3]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    ask = dict(model=model, messages=messages, max_completion_tokens=8, temperature=0)
    chat = client.chat.completions.create(**ask, logprobs=True, top_logprobs=2)
    assert chat.choices[0].message.role == "assistant" and len(chat.choices[0].logprobs.content) == 8
    parts = list(client.chat.completions.create(**ask, stream=True))
    assert "".join(p.choices[0].delta.content or "" for p in parts) == chat.choices[0].message.content
    for wrong, error in [(dict(temperature=-1), openai.BadRequestError), (dict(model="none"), openai.NotFoundError)]:
        try:
            client.completions.create(**{"model": model, "prompt": "a", **wrong})
            raise SystemExit(f"{wrong} passed")
        except error as e:
            assert e.param in wrong, e
    print(f"openai {openai.__version__}: completions, chats, streams, batches, errors")


TASK = """
task: lolm_local
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{context}}}}"
doc_to_choice: "{{{{[right, wrong]}}}}"
target_delimiter: ""
doc_to_target: 0
metric_list:
  - metric: acc
"""


def with_harness():
    folder = pathlib.Path(tempfile.mkdtemp())
    data = folder / "data.json"
    data.write_text(json.dumps({"context": text[0], "right": text[1:], "wrong": text[:0:-1]}) + "\n")
    (folder / "task.yaml").write_text(TASK.format(data=data))
    from lm_eval.tasks import TaskManager

    found = lm_eval.simple_evaluate(
        model="local-completions",
        model_args=f"model=lolm-demo,base_url={url}/v1/completions,tokenizer_backend=remote,num_concurrent=2,max_length=64",
        tasks=["lolm_local"],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
    )
    right = found["samples"]["lolm_local"][0]["filtered_resps"][0][0]
    expected = -loss * (len(text) - 1)
    assert abs(float(right) - expected) < 1e-4 * abs(expected), f"the harness found {right}, lolm eval {expected}"
    print(f"lm-eval {lm_eval.__version__}: {right}, as lolm eval: {expected}")


with_openai()
with_harness()
