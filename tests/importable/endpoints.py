"""A stand-in for a server of a language model on loopback: the routes of each kind, and what can go wrong with them.

Its model repeats what came after an id the last time, but for tokens that it cannot say.
"""

import json
import threading
from collections import deque
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from bytewise import N_TOKENS, UNTRAINED, tokenizer

KINDS = ("llama.cpp", "llama.cpp /v1", "vLLM", "vLLM old", "OpenAI-compatible", "Ollama")
PLACES = 3


def logprobs(ids, unable=UNTRAINED):
    """Log-probabilities of the next token, of which no two are equal."""
    *before, last = ids
    places = [n for n, one in enumerate(before) if one == last]
    answer = ids[places[-1] + 1] if places else last
    logits = -0.001 * np.arange(N_TOKENS)
    logits[0 if answer in unable else answer] = 12.0
    return logits - np.log(np.exp(logits).sum())


class Endpoint:
    """A server of a kind, with a record of what it was asked."""

    def __init__(self, kind="llama.cpp", key=None, names=("small",), eos=()):
        self.kind = kind
        self.key = key
        self.names = names
        self.eos = eos  # tokens that end an answer, but where that is ignored
        self.n_vocab = N_TOKENS
        self.most = 100_000 if kind.startswith("llama") else 20  # tokens that it lists at the most
        self.statuses = deque()  # (status, headers) of the next answers to prompts
        self.change = lambda answer: answer  # what becomes of an answer to a prompt
        self.raw = lambda content: content  # and of its bytes
        self.refusal = "not now"  # what is said with a status
        self.asked = []  # (path, body) of each POST
        self.keys = set()
        self.n_connections = 0
        self.n_open = 0
        self.most_open = 0
        self.tokenizer = tokenizer()
        self.lock = threading.Lock()

    @contextmanager
    def running(self):
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"endpoint": self}))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    @property
    def prompts(self):
        return [body for path, body in self.asked if path in ("/completion", "/v1/completions", "/api/generate")]

    def get(self, path):
        owner = {"llama.cpp": "llamacpp", "llama.cpp /v1": "llamacpp", "vLLM": "vllm", "vLLM old": "vllm"}
        about = {"owned_by": owner.get(self.kind, "someone")}
        if self.kind.startswith("vLLM"):
            about["max_model_len"] = 4096
        if self.kind.startswith("llama"):
            about["meta"] = {"n_vocab": self.n_vocab}
        routes = {"/v1/models": {"data": [{"id": name, **about} for name in self.names]}}
        if self.kind == "llama.cpp":
            routes["/props"] = {"default_generation_settings": {"n_ctx": 1024}, "total_slots": 4, "build_info": "b1"}
        if self.kind == "Ollama":
            routes["/api/version"] = {"version": "0.12.0"}
        if self.kind.startswith("vLLM"):
            routes["/version"] = {"version": "0.26.0"}
        return routes.get(path)

    def post(self, path, body):
        """Return a status and an answer."""
        if path == "/tokenize" and not self.kind.startswith(("OpenAI", "Ollama")):
            text = body["content"] if self.kind.startswith("llama") else body["prompt"]
            return 200, {"tokens": self.tokenizer.encode(text).ids}
        if path == "/apply-template" and self.kind.startswith("llama"):
            return 200, {"prompt": f"<user>{body['messages'][0]['content']}</user>"}
        route = {"llama.cpp": "/completion", "Ollama": "/api/generate"}.get(self.kind, "/v1/completions")
        if path != route:
            return 404, {"error": {"message": "no such route"}}
        if body.get("model", self.names[0]) not in self.names:
            return 404, {"error": f"model '{body['model']}' not found"}
        takes_text = self.kind in ("OpenAI-compatible", "Ollama")
        if isinstance(body["prompt"], str) != takes_text:
            return 400, {"error": {"message": "prompt is of another type"}}
        count = body.get("n_probs") or body.get("logprobs")
        if self.kind == "Ollama":
            count = body["top_logprobs"]
        if count > self.most:
            return 400, {"error": {"message": f"at most {self.most} log-probabilities"}}
        ids = self.tokenizer.encode(body["prompt"]).ids if takes_text else list(body["prompt"])
        n_places = body.get("n_predict") or body.get("max_tokens") or body["options"]["num_predict"]
        places, stopped = [], "length"
        for _ in range(n_places):
            every = logprobs(ids)
            listed = np.argsort(-every)[:count].tolist()
            answer = listed[0] if "logit_bias" not in body else body["logit_bias"][0][0]
            if self.kind == "vLLM" and "logprob_token_ids" in body:
                listed = [answer, *body["logprob_token_ids"]]
            places.append((answer, every, listed))
            ids.append(answer)
            if answer in self.eos and not body.get("ignore_eos"):
                stopped = "stop"
                break
        return 200, self.change(self.written(places, stopped))

    def written(self, places, stopped):
        """Return an answer as this kind of server writes it."""
        if self.kind.startswith(("vLLM", "OpenAI")):
            name = self.text if self.kind.startswith("OpenAI") else "token_id:{}".format
            listed = {
                "tokens": [name(answer) for answer, _, _ in places],
                "token_logprobs": [every[answer] for answer, every, _ in places],
                "top_logprobs": [{name(token): every[token] for token in listed} for _, every, listed in places],
            }
            return {"choices": [{"logprobs": listed, "finish_reason": stopped}]}

        def entry(token, every):
            one = {"token": self.text(token), "logprob": every[token]}
            return one if self.kind == "Ollama" else {"id": token, **one}

        listed = [
            {**entry(answer, every), "top_logprobs": [entry(token, every) for token in tokens]}
            for answer, every, tokens in places
            if self.kind == "Ollama" or "\ufffd" not in self.text(answer)  # of no whole character: left out
        ]
        if self.kind == "llama.cpp":
            return {"completion_probabilities": listed, "stop_type": {"stop": "eos"}.get(stopped, "limit")}
        if self.kind == "Ollama":
            return {"logprobs": listed, "done_reason": stopped}
        return {"choices": [{"logprobs": {"content": listed}, "finish_reason": stopped}]}

    def text(self, token):
        return self.tokenizer.decode([token])


class Handler(BaseHTTPRequestHandler):
    """One connection; `endpoint` says what to answer."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet

    def setup(self):
        super().setup()
        self.endpoint.n_connections += 1

    def do_GET(self):
        answer = self.endpoint.get(self.path)
        self.send(*((200, answer) if answer else (404, {"error": "not found"})))

    def do_POST(self):
        endpoint = self.endpoint
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_prompt = self.path not in ("/tokenize", "/apply-template")
        with endpoint.lock:
            endpoint.keys.add(self.headers.get("Authorization"))
            endpoint.asked.append((self.path, body))
            endpoint.n_open += 1
            endpoint.most_open = max(endpoint.most_open, endpoint.n_open)
            fault = endpoint.statuses.popleft() if endpoint.statuses and is_prompt else None
        try:
            if endpoint.key and self.headers.get("Authorization") != f"Bearer {endpoint.key}":
                self.send(401, {"error": {"message": f"not {self.headers.get('Authorization')}"}})
            elif fault:
                self.send(fault[0], {"error": {"message": endpoint.refusal}}, fault[1])
            else:
                self.send(*endpoint.post(self.path, body), raw=endpoint.raw if is_prompt else None)
        finally:
            with endpoint.lock:
                endpoint.n_open -= 1

    def send(self, status, answer, headers=None, raw=None):
        content = json.dumps(answer).encode()
        sent = raw(content) if raw else content
        self.send_response(status)
        for name, value in {"Content-Length": str(max(len(content), len(sent))), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(sent)
        self.close_connection = len(sent) < len(content)

    def log_message(self, *_):
        pass
