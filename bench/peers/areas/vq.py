# SPDX-License-Identifier: Apache-2.0
"""Nearest codes against faiss and PyTorch, a training step of vector quantisation against
vector-quantize-pytorch, a VQ-VAE's epoch and sampling from a PixelCNN against PyTorch.

Nearest code: 65,536 rows, float32, codes of K rows; counted as 2 N K d operations. faiss:
IndexFlatL2.search of one neighbour. torch: argmin of addmm(|c|^2 / 2, x, -c^T), the products into a
matrix that is there. quern: CodeSearch, made before the clock starts as the peers' are. Quality: share of
rows whose code is that of float64.

Train step ("vq step"): N = 65,536 rows, d = 64, K = 1024, EMA: codes, quantised rows, commitment loss and
its gradient, new codebook. Peer: VectorQuantize(decay=.99, commitment_weight=.25, kmeans_init=False)
forward and backward.

VQ-VAE epoch: 1 -> 32 -> 64 channels by two convolutions of stride 2, K = 512, d = 64, EMA .99, Adam
1e-3, batches of 128, on Fashion-MNIST's images if they are given (else made ones), channels last in
quern, torch's channels_last in torch. Seconds an epoch; quality: mean squared error on 10,000 other
images after it. One run a side, the first: the peer's alone takes a minute or two.

Sampling: 64 grids of 7 x 7 from a gated PixelCNN of 8 layers and 64 channels. The peer is the loop
that people write: the whole network for each pixel. quern keeps what was worked out.
"""

import gzip
import os
import time

import numpy

from area import Case, Peer, PythonPeer, cached

DRIVER = "vq_driver"
FASHION = "/usr/share/datasets/fashion-mnist"  # Debian's dataset-fashion-mnist


class Faiss(PythonPeer):
    def __init__(self):
        super().__init__()
        import faiss

        self.faiss = faiss
        faiss.omp_set_num_threads(self.threads)
        self.index, self.last = None, None

    def describe(self):
        return f"faiss {self.faiss.__version__}"

    def forget(self):
        super().forget()
        self.index = None

    def run(self, case, inner=1, **_):
        if self.index is None:
            self.index = self.faiss.IndexFlatL2(self.arrays["c"].shape[1])
            self.index.add(self.arrays["c"])
        start = time.perf_counter()
        for _ in range(inner):
            _, codes = self.index.search(self.arrays["x"], 1)
        seconds = (time.perf_counter() - start) / inner
        self.last = codes.ravel()
        return {"seconds": seconds}

    def output(self):
        return self.last.astype(numpy.int64)


class Torch(PythonPeer):
    def __init__(self):
        super().__init__()
        import torch

        self.torch = torch
        torch.set_num_threads(self.threads)
        self.product, self.last, self.net = None, None, None

    def describe(self):
        return f"torch {self.torch.__version__}"

    def forget(self):
        super().forget()
        self.product, self.net = None, None

    def nearest(self, inner):
        torch = self.torch
        x, c = torch.from_numpy(self.arrays["x"]), torch.from_numpy(self.arrays["c"])
        if self.product is None:
            self.product = torch.empty((len(x), len(c)))
        with torch.inference_mode():
            half = (c * c).sum(1) / 2
            start = time.perf_counter()
            for _ in range(inner):
                torch.addmm(half, x, c.T, alpha=-1, out=self.product)
                codes = self.product.argmin(1)
            seconds = (time.perf_counter() - start) / inner
        self.last = codes.numpy()
        return {"seconds": seconds}

    def epoch(self):
        torch = self.torch
        nn = torch.nn
        torch.manual_seed(1)
        x = torch.from_numpy(self.arrays["train"]).contiguous(memory_format=torch.channels_last)
        encoder = nn.Sequential(nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1))
        decoder = nn.Sequential(nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(),
                                nn.ConvTranspose2d(32, 1, 4, 2, 1))
        nets = nn.ModuleList([encoder, decoder]).to(memory_format=torch.channels_last)
        adam = torch.optim.Adam(nets.parameters(), 1e-3, fused=True)
        with torch.no_grad():
            z = encoder(x[:128]).permute(0, 2, 3, 1).reshape(-1, 64)
            codes = z[torch.randperm(len(z))[:512]].clone()
        size, total, step = torch.zeros(512), torch.zeros(512, 64), 0
        order = torch.randperm(len(x))
        start = time.perf_counter()
        for at in range(0, len(x), 128):
            batch = x[order[at:at + 128]]
            z = encoder(batch).permute(0, 2, 3, 1)
            flat = z.reshape(-1, 64)
            with torch.no_grad():
                index = torch.addmm((codes * codes).sum(1) / 2, flat, codes.T, alpha=-1).argmin(1)
                q = codes[index]
            commitment = ((q - flat) ** 2).mean()
            st = flat + (q - flat).detach()
            y = decoder(st.reshape(z.shape).permute(0, 3, 1, 2))
            loss = ((y - batch) ** 2).mean() + 0.25 * commitment
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            with torch.no_grad():
                step += 1
                size.mul_(0.99).add_(torch.bincount(index, minlength=512), alpha=0.01)
                total.mul_(0.99).index_add_(0, index, flat.detach(), alpha=0.01)
                bias = 1 - 0.99**step
                n = size.sum() / bias
                smooth = (size / bias + 1e-5) / (n + 512e-5) * n
                codes = total / bias / smooth[:, None]
        seconds = time.perf_counter() - start
        with torch.no_grad():
            error = 0.0
            test = torch.from_numpy(self.arrays["test"])
            for at in range(0, len(test), 500):
                z = encoder(test[at:at + 500]).permute(0, 2, 3, 1)
                flat = z.reshape(-1, 64)
                index = torch.addmm((codes * codes).sum(1) / 2, flat, codes.T, alpha=-1).argmin(1)
                y = decoder(codes[index].reshape(z.shape).permute(0, 3, 1, 2))
                error += ((y - test[at:at + 500]) ** 2).sum().item()
        self.last = numpy.array([error / test.numel()])
        return {"seconds": seconds}

    def sample(self):
        torch = self.torch
        nn = torch.nn
        if self.net is None:
            torch.manual_seed(1)
            self.net = nn.ModuleDict({
                "embedding": nn.Embedding(512, 64), "first": nn.Conv2d(64, 64, (7, 13), padding=(3, 6)),
                "gates": nn.ModuleList([nn.Conv2d(64, 128, 3, padding=1) for _ in range(8)]),
                "outs": nn.ModuleList([nn.Conv2d(64, 64, 1) for _ in range(8)]),
                "logits": nn.Conv2d(64, 512, 1)})
            with torch.no_grad():
                for conv, centre in [(self.net["first"], 0)] + [(g, 1) for g in self.net["gates"]]:
                    h, w = conv.kernel_size
                    mask = (torch.arange(h * w) < h * w // 2 + centre).view(h, w)
                    conv.weight *= mask
        net = self.net
        with torch.inference_mode():
            codes = torch.zeros((64, 7, 7), dtype=torch.long)
            start = time.perf_counter()
            for p in range(49):
                h = net["first"](net["embedding"](codes).permute(0, 3, 1, 2))
                for gate, out in zip(net["gates"], net["outs"]):
                    a, b = gate(h).chunk(2, 1)
                    h = h + out(torch.tanh(a) * torch.sigmoid(b))
                logits = net["logits"](torch.relu(h))[:, :, p // 7, p % 7]
                codes[:, p // 7, p % 7] = torch.multinomial(logits.softmax(1), 1)[:, 0]
            seconds = time.perf_counter() - start
        self.last = codes.numpy().ravel()
        return {"seconds": seconds}

    def run(self, case, inner=1, **_):
        if case == "nearest":
            return self.nearest(inner)
        return self.epoch() if case == "epoch" else self.sample()

    def output(self):
        return self.last


class VqPytorch(PythonPeer):
    def __init__(self):
        super().__init__()
        import torch
        import vector_quantize_pytorch

        self.torch, self.make = torch, vector_quantize_pytorch.VectorQuantize
        torch.set_num_threads(self.threads)
        self.layer, self.last = None, None

    def describe(self):
        import importlib.metadata

        return "vector-quantize-pytorch " + importlib.metadata.version("vector-quantize-pytorch")

    def forget(self):
        super().forget()
        self.layer = None

    def run(self, case, inner=1, **_):
        torch = self.torch
        if self.layer is None:
            c = torch.from_numpy(self.arrays["c"])
            self.layer = self.make(dim=c.shape[1], codebook_size=len(c), decay=0.99,
                                   commitment_weight=0.25, kmeans_init=False, rotation_trick=False)
            self.layer._codebook.embed.data.copy_(c[None])
            self.layer._codebook.embed_avg.data.copy_(c[None])
            self.layer.train()
        x = torch.from_numpy(self.arrays["x"])[None].requires_grad_()
        start = time.perf_counter()
        for _ in range(inner):
            q, codes, loss = self.layer(x)
            (q.sum() / x.shape[1] + loss.sum()).backward()
            x.grad = None
        seconds = (time.perf_counter() - start) / inner
        self.last = codes.numpy().ravel().astype(numpy.int64)
        return {"seconds": seconds}

    def output(self):
        return self.last


PEERS = {"faiss": Peer(make=Faiss), "torch": Peer(make=Torch), "vqpt": Peer(make=VqPytorch)}


def normal(seed, shape):
    return lambda: numpy.random.default_rng(seed).normal(size=shape).astype(numpy.float32)


def images(name, count, seed):
    """Fashion-MNIST's, or spots where that is not installed; (N, 1, 28, 28) in 0..1."""

    def make():
        path = os.path.join(FASHION, f"{name}-images-idx3-ubyte.gz")
        if os.path.exists(path):
            with gzip.open(path) as file:
                pixels = numpy.frombuffer(file.read(), numpy.uint8, offset=16)
            return (pixels.reshape(-1, 1, 28, 28)[:count] / 255).astype(numpy.float32)
        draw = numpy.random.default_rng(seed)
        at = draw.uniform(4, 24, (count, 4, 2))
        y, x = numpy.mgrid[0:28, 0:28]
        far = (y[None, None] - at[..., :1, None]) ** 2 + (x[None, None] - at[..., 1:, None]) ** 2
        return numpy.exp(-far / 20).max(1)[:, None].astype(numpy.float32)

    return make


def right_codes(rows, codes):
    def quality(answer, folder):
        x = numpy.load(os.path.join(folder, rows), mmap_mode="r")[:4096].astype(numpy.float64)
        c = numpy.load(os.path.join(folder, codes)).astype(numpy.float64)
        exact = ((c * c).sum(1) / 2 - x @ c.T).argmin(1)
        return float((answer[:4096] == exact).mean())

    return quality


def nearest_case(folder, n, d, k, peers):
    rows = cached(folder, f"vq-x-{n}x{d}", normal(1, (n, d)))
    codes = cached(folder, f"vq-c-{k}x{d}", normal(2, (k, d)))
    return Case(name=f"nearest code N={n} d={d} K={k}", metric="GFLOP/s", run="nearest",
                work=2e-9 * n * k * d, peers=peers, repeats=3, data={"x": rows, "c": codes},
                quality=right_codes(rows, codes),
                limit=lambda limits, threads: limits.get("fma_f32"))


def cases(folder, quick):
    n = 8192 if quick else 65536
    for d, k in ((64, 512), (64, 1024), (64, 8192), (256, 1024)):
        yield nearest_case(folder, n, d, k, ("faiss", "torch"))
    rows = cached(folder, f"vq-x-{n}x64", normal(1, (n, 64)))
    codes = cached(folder, "vq-c-1024x64", normal(2, (1024, 64)))
    yield Case(name=f"vq step N={n} d=64 K=1024", metric="ms", run="step", work=1e3, higher=False,
               peers=("vqpt",), data={"x": rows, "c": codes}, slot=0 if not quick else 0.1, repeats=3)
    count = 6000 if quick else 60000
    train = cached(folder, f"vq-train-{count}", images("train", count, 3))
    test = cached(folder, "vq-test", images("t10k", 10000, 4))
    yield Case(name=f"VQ-VAE epoch of {count} images", metric="s", run="epoch", work=1.0,
               higher=False, peers=("torch",), data={"train": train, "test": test}, cold=True, repeats=1,
               quality=lambda answer, folder: float(answer[0]))
    yield Case(name="PixelCNN: 64 grids of 7 x 7", metric="ms", run="sample", work=1e3, higher=False,
               peers=("torch",), slot=0, repeats=3)
