"""The errors a user of wherein can meet; `str(error)` is one sentence that says what was given, expected and to do."""


class WhereinError(Exception):
    """Base of every error raised on purpose; the command line prints its sentence and exits with status 2."""


class InputError(WhereinError):
    """The caller gave something unusable: a phrase, a path, data or an option."""


class ImageError(InputError):
    """The image is missing, no image, damaged, larger than the limit, or of a shape that the model cannot take."""


class PhraseError(InputError):
    """The phrase is one that this model or this method cannot take: with a control token, or with too many tokens."""


class AdapterError(InputError):
    """The adapter is missing, corrupted, or was made for another model."""


class PartsError(WhereinError):
    """A part of the default model is neither in the cache nor can it be fetched."""
