"""Networks on sequences and tokens: attention, embeddings, gates, and weights that no module of torch.nn holds."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from tests.topology import Topology, Verdicts


class Sequences(Topology):
    """Takes sequences of five steps with three features."""

    @classmethod
    def example(cls, batch: int = 8) -> torch.Tensor:
        return torch.randn(batch, 5, 3)


class FeaturesLast(Sequences):
    """Flattened with the features innermost: the columns of one neuron lie apart."""

    verdicts: ClassVar[Verdicts] = {"embed": "exact", "mix": "exact", "head": "refused:output"}

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 4)
        self.mix = nn.Linear(4, 6)
        self.head = nn.Linear(5 * 6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.mix(F.silu(self.embed(x)))).flatten(1))


class HeadsFixed(Sequences):
    """The number of heads is fixed, their size is what remains."""

    verdicts: ClassVar[Verdicts] = {
        "embed": "exact",
        "query": "inexact-or-refused:",
        "key": "inexact-or-refused:",
        "value": "refused:number in its code",
        "out": "exact",
        "head": "refused:output",
    }
    mixing = True
    width = 12

    def __init__(self) -> None:
        super().__init__()
        self.heads = 3
        self.embed = nn.Linear(3, 6)
        self.query = nn.Linear(6, self.width)
        self.key = nn.Linear(6, self.width)
        self.value = nn.Linear(6, self.width)
        self.out = nn.Linear(self.width, 6)
        self.head = nn.Linear(6, 2)

    def split(self, x: torch.Tensor) -> torch.Tensor:
        batch, steps, _ = x.shape
        return x.view(batch, steps, self.heads, -1).transpose(1, 2)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        y = self.attend(self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x)))
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return self.head(x.mean(1))


class HeadSizeFixed(HeadsFixed):
    """The size of a head is fixed: whole heads can go."""

    verdicts: ClassVar[Verdicts] = {
        "embed": "exact",
        "query": "together",
        "key": "together",
        "value": "together",
        "out": "exact",
        "head": "refused:output",
    }

    def split(self, x: torch.Tensor) -> torch.Tensor:
        batch, steps, _ = x.shape
        return x.view(batch, steps, -1, 4).transpose(1, 2)


class TwoHeads(HeadSizeFixed):
    """Once one head is gone no dimension tells that there were several: whether it may go is left open."""

    verdicts: ClassVar[Verdicts] = {**HeadSizeFixed.verdicts, "query": "any", "key": "any", "value": "any"}
    width = 8


class HeadsByHand(HeadsFixed):
    """The scale comes from the shape: it is not what the trace saw once the size of a head changes."""

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        return scores.softmax(-1) @ v


class HeadsScaled(HeadsFixed):
    """The scale is fixed: a feature of the queries and keys of every head could go exactly, but a trace cannot tell."""

    verdicts: ClassVar[Verdicts] = {**HeadsFixed.verdicts, "query": "any", "key": "any"}

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        scores = torch.einsum("bhid,bhjd->bhij", q, k) * 0.5
        return torch.einsum("bhij,bhjd->bhid", scores.softmax(-1), v)


class PackedHeads(Sequences):
    """Queries, keys and values of one layer, with heads and their size both written into the code."""

    verdicts: ClassVar[Verdicts] = {
        "embed": "exact",
        "packed": "refused:",
        "out": "exact",
        "head": "refused:output",
    }
    mixing = True

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 6)
        self.packed = nn.Linear(6, 3 * 12)
        self.out = nn.Linear(12, 6)
        self.head = nn.Linear(6, 2)

    def heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], x.shape[1], 3, 3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        q, k, v = self.heads(self.packed(x)).permute(2, 0, 3, 1, 4)
        y = (q @ k.transpose(-2, -1) / 2).softmax(dim=-1) @ v
        x = x + self.out(y.transpose(1, 2).reshape(x.shape[0], x.shape[1], -1))
        return self.head(x[:, -1])


class PackedHeadsFree(PackedHeads):
    """The same with the number of heads left open."""

    verdicts: ClassVar[Verdicts] = {**PackedHeads.verdicts, "packed": "together"}

    def heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], x.shape[1], 3, -1, 4)


class MultiheadAttention(Sequences):
    """torch's own attention: its number of features is also its width, so that only what lies beside it can go."""

    verdicts: ClassVar[Verdicts] = {"hidden": "exact", "embed": "refused:", "head": "refused:output"}
    hooked = False
    mixing = True

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(3, 5)
        self.embed = nn.Linear(5, 6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(F.silu(self.hidden(x)))
        y, _ = self.attention(x, x, x, need_weights=False)
        return self.head((x + y).mean(1))


class Transformer(Sequences):
    verdicts: ClassVar[Verdicts] = {"layer.linear1": "exact", "embed": "inexact-or-refused:", "head": "refused:output"}
    hooked = False
    mixing = True
    norm_first = False

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 6)
        self.layer = nn.TransformerEncoderLayer(
            6, 2, dim_feedforward=7, dropout=0.0, batch_first=True, norm_first=self.norm_first, activation="gelu"
        )
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.embed(x)).mean(1))


class TransformerNormFirst(Transformer):
    norm_first = True


class Gated(Sequences):
    """The halves of one layer multiply each other."""

    verdicts: ClassVar[Verdicts] = {"up": "together", "down": "exact", "head": "refused:output"}
    mixing = True

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(3, 10)
        self.down = nn.Linear(5, 4)
        self.head = nn.Linear(4, 2)

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        value, gate = x.chunk(2, dim=-1)
        return value * torch.sigmoid(gate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.silu(self.down(self.gate(self.up(x)))).mean(1))


class GatedByGlu(Gated):
    def gate(self, x: torch.Tensor) -> torch.Tensor:
        return F.glu(x, dim=-1)


class SwiGlu(Sequences):
    verdicts: ClassVar[Verdicts] = {"gate": "exact", "up": "exact", "down": "exact", "head": "refused:output"}
    mixing = True

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(3, 6, bias=False)
        self.up = nn.Linear(3, 6, bias=False)
        self.down = nn.Linear(6, 4, bias=False)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.down(F.silu(self.gate(x)) * self.up(x))).mean(1))


class Words(Topology):
    """Takes sequences of six words out of eleven."""

    @classmethod
    def example(cls, batch: int = 8) -> torch.Tensor:
        return torch.randint(0, 11, (batch, 6))


class BagOfWords(Words):
    verdicts: ClassVar[Verdicts] = {"embed": "exact", "hidden": "exact", "head": "refused:output"}

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 5)
        self.hidden = nn.Linear(5, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.silu(self.hidden(self.embed(x).mean(dim=1))))


class TiedEmbedding(Words):
    """The embedding is the output layer too."""

    verdicts: ClassVar[Verdicts] = {"embed": "exact", "hidden": "exact", "back": "exact", "out": "refused:"}

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 5)
        self.hidden = nn.Linear(5, 7)
        self.back = nn.Linear(7, 5)
        self.out = nn.Linear(5, 11, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        return self.out(x + self.back(F.silu(self.hidden(x))))


class Tokens(Topology):
    """Patches of an image as tokens, with a learned position each and a token for the class; mixed as in MLP-Mixer."""

    verdicts: ClassVar[Verdicts] = {
        "patches": "exact",
        "hidden": "exact",
        "mix1": "exact",
        "mix2": "refused:",
        "back": "exact",
        "head": "refused:output",
    }
    mixing = True

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(2, 5, 2, stride=2)
        self.token = nn.Parameter(torch.randn(1, 1, 5))
        self.positions = nn.Parameter(torch.randn(1, 5, 5))
        self.hidden = nn.Linear(5, 6)
        self.mix1 = nn.Linear(5, 7)
        self.mix2 = nn.Linear(7, 5)
        self.back = nn.Linear(6, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        x = x + self.mix2(F.gelu(self.mix1(x.transpose(1, 2)))).transpose(1, 2)
        x = x + self.back(F.gelu(self.hidden(x)))
        return self.head(x[:, 0])

    @classmethod
    def example(cls, batch: int = 8) -> torch.Tensor:
        return torch.randn(batch, 2, 4, 4)


class Functional(Topology):
    """Weights that are plain parameters, used by operators."""

    verdicts: ClassVar[Verdicts] = {"first": "exact", "head": "refused:output"}
    raw_in_axes: ClassVar[dict[str, int]] = {"w": 0, "v": 1}
    hooked = False

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.w = nn.Parameter(torch.randn(6, 5) / 2)
        self.b = nn.Parameter(torch.randn(5) / 2)
        self.v = nn.Parameter(torch.randn(4, 5) / 2)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(torch.tanh(self.first(x)) @ self.w + self.b)
        return self.head(torch.tanh(F.linear(x, self.v)))

    @classmethod
    def example(cls, batch: int = 8) -> torch.Tensor:
        return torch.randn(batch, 4)


class Recurrent(Sequences):
    """An LSTM: whatever is answered must be right."""

    verdicts: ClassVar[Verdicts] = {"embed": "any", "head": "refused:output"}
    hooked = False
    mixing = True

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 4)
        self.lstm = nn.LSTM(4, 5, batch_first=True)
        self.head = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(F.silu(self.embed(x)))[0][:, -1])


class SoftFeatures(Sequences):
    """A softmax and a normalisation over the neurons themselves, and a product of all pairs of them."""

    verdicts: ClassVar[Verdicts] = {
        "fc1": "inexact-or-refused:",
        "fc2": "inexact-or-refused:",
        "fc3": "any",
        "head": "refused:output",
    }
    mixing = True

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(3, 5)
        self.fc2 = nn.Linear(5, 6)
        self.fc3 = nn.Linear(6, 4)
        self.head = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.normalize(self.fc2(self.fc1(x).softmax(-1)), dim=-1)
        x = self.fc3(x)
        return self.head((x.transpose(1, 2) @ x).flatten(1))


SEQUENCES: tuple[type[Topology], ...] = (
    FeaturesLast,
    HeadsFixed,
    HeadSizeFixed,
    TwoHeads,
    HeadsByHand,
    HeadsScaled,
    PackedHeads,
    PackedHeadsFree,
    MultiheadAttention,
    Transformer,
    TransformerNormFirst,
    Gated,
    GatedByGlu,
    SwiGlu,
    BagOfWords,
    TiedEmbedding,
    Tokens,
    Functional,
    Recurrent,
    SoftFeatures,
)
