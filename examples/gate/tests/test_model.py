"""The build is as good as the blessed model."""

import pytest


@pytest.mark.distilbench(baseline="baseline/model.json", tasks=["pairs.csv"], margin=1.0)
def test_the_build_is_the_blessed_model(distilbench_gate):
    distilbench_gate.check("build/model")
