# Built in a clone:  docker build -t distilbench .
# With CUDA wheels:  docker build -t distilbench --build-arg TORCH=cu128 .
# Used in a folder with a study:
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" -v distilbench-cache:/cache distilbench run mine.yaml

FROM python:3.12-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY bench bench
COPY methods methods
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
# cpu, or a version of CUDA that PyTorch has wheels for
ARG TORCH=cpu
COPY constraints.txt /tmp/constraints.txt
COPY requirements/demo.txt /tmp/requirements.txt
COPY --from=wheel /wheels /wheels
# uv knows where PyTorch keeps its wheels for each of them, whose hashes are others each time.
RUN pip install --no-cache-dir uv \
    && uv pip install --system --no-cache --require-hashes --no-deps --only-binary :all: -r /tmp/requirements.txt \
    && uv pip install --system --no-cache --torch-backend "${TORCH}" --constraint /tmp/constraints.txt torch \
    && uv pip install --system --no-cache --no-deps /wheels/*.whl \
    && uv pip check --system \
    && rm -r /wheels /tmp/constraints.txt /tmp/requirements.txt \
    && mkdir /work /cache && chmod 1777 /work /cache
# Whatever user it runs as, there is a home for caches that can be written.
ENV HOME=/cache DISTILBENCH_CACHE=/cache/distilbench
VOLUME /cache
WORKDIR /work
ENTRYPOINT ["distilbench"]
CMD ["--help"]
