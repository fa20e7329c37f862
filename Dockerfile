# The command line in an image, for the CPU by default. For a GPU take torch with its CUDA libraries:
#
#     docker build -t bench .
#     docker build -t bench --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
#     docker run --rm -v "$PWD:/work" bench run --attack ciba --victim hashnet --bits 48
#     docker run --rm --gpus all -v "$PWD:/work" bench suite run quick --device cuda
#
# Records go to /work/runs, the cache to /work/cache. If the folder is not of user 1000, add
# --user "$(id -u):$(id -g)".
FROM python:3.12-slim AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:3.12-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# hadolint ignore=DL3013
RUN pip install --no-cache-dir torch torchvision --index-url "$TORCH_INDEX"
# hadolint ignore=DL3013
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist pip install --no-cache-dir /dist/*.whl
RUN useradd --uid 1000 --create-home bench && mkdir --mode 777 /work
USER 1000
WORKDIR /work
ENV HASHBACKDOOR_CACHE=/work/cache HF_HOME=/work/cache/huggingface \
    MPLCONFIGDIR=/tmp/matplotlib NUMBA_CACHE_DIR=/tmp/numba
HEALTHCHECK --interval=5m --timeout=30s CMD ["bench", "list", "attacks"]
ENTRYPOINT ["bench"]
CMD ["--help"]
