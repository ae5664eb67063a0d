import warnings

import pytest


@pytest.fixture(scope="session")
def transformers():
    """Import the library that checkpoints come from, which takes seconds and warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return transformers
