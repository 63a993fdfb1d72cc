"""What becomes of queries and keys between their projection and attention: norms of heads and rotary positions.

A Llama turns both; Qwen3 takes the RMSNorm of each head before; SmolLM3 leaves them as they are in some layers.
"""

import torch

from lorastudy.engine import kernels


class Heads:
    """Queries and keys of a layer.

    Args:
        attention: the layer's attention in transformers.
        queries, keys: widths of all queries and of all keys of a token.

    Attributes:
        width: of a head.
        rotary: whether they are turned by their positions.
    """

    def __init__(self, attention, queries, keys):
        self.width, self.rotary = attention.head_dim, getattr(attention, "use_rope", True)
        norms = (getattr(attention, "q_norm", None), getattr(attention, "k_norm", None))
        self.parts = list(zip((slice(0, queries), slice(queries, queries + keys)), norms))

    def forward(self, states, cos, sin, only=None):
        """Change queries and keys, side by side in ``states`` of shape (T, queries + keys), in place.

        Args:
            cos, sin: rotary positions, (T, head width).
            only: 0 where ``states`` are queries alone, 1 where they are keys.

        Returns:
            What the backward pass needs, a tuple of tensors; empty without norms.
        """
        kept = []
        for columns, norm in self._parts(only):
            if norm is not None:
                own = states[:, columns].clone(memory_format=torch.contiguous_format).view(-1, self.width)
                unit, rstd = kernels.norm(own, norm.weight, norm.variance_epsilon)
                states[:, columns] = unit.view(len(states), -1)
                kept += [own, rstd]
        if self.rotary:
            kernels.rotate(states, cos, sin, self.width, out=states)
        return tuple(kept)

    def backward(self, gradient, cos, sin, kept, out, only=None):
        """Write the gradient of ``states`` to ``out``, from that of what ``forward`` made of them.

        Args:
            gradient, out: shape as ``states``; may be slices of wider rows.
            kept: of ``forward``.
        """
        if self.rotary:
            kernels.rotate(gradient, cos, sin, self.width, out=out, backward=True)
        else:
            out.copy_(gradient)
        kept = iter(kept)
        for columns, norm in self._parts(only):
            if norm is not None:
                own, rstd = next(kept), next(kept)
                behind = out[:, columns].reshape(-1, self.width)
                skip = torch.zeros_like(behind)
                ahead, _ = kernels.norm_backward(behind, own, rstd, norm.weight, skip)
                out[:, columns] = ahead.view(len(out), -1)
        return out

    def _parts(self, only):
        return self.parts if only is None else [(slice(None), self.parts[only][1])]
