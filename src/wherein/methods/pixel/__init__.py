"""The pixel-aligned language model (PixelLLM, CVPR'24): a place for every word it writes, regions in, boxes out.

The parts of one model: `config` what it is made of, `encoders` pictures to patch features on one grid, `prompts` places
to embeddings, `extractor` both to 32 visual tokens, `language` tokens and text to states, `points` states to places,
`masks` places to masks; `losses` what it is trained on; `model` all of it; `reader` pictures and words in, words and
boxes in pixels of the caller's image out; `captions` what it says, `picture` that drawn; `method` the method. Only the
last is imported here: transformers is heavy.
"""

from wherein.methods.pixel.method import Pixel

__all__ = ["Pixel"]
