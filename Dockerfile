# syntax=docker/dockerfile:1
# Understudy on Linux: mlx[cpu]. On a Mac run it natively: Docker has no Metal.
# For CUDA see the extras `cuda` and `cuda13` in pyproject.toml.
#
#     docker build --tag understudy .
#     docker run --publish 4100:4100 --stop-timeout 30 \
#         --env OPENAI_API_KEY --env UNDERSTUDY_CLIENT_KEY \
#         --volume ./config.yaml:/etc/understudy/config.yaml:ro \
#         --volume understudy-data:/var/lib/understudy understudy
#
# In that config.yaml, because a container is reached from outside:
#
#     server:
#       host: 0.0.0.0
#       keys: [{key: os.environ/UNDERSTUDY_CLIENT_KEY, name: app}]

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/understudy
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# The dependencies first and alone: they change more rarely than the code, and take minutes.
COPY pyproject.toml constraints.txt README.md ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > dependencies.txt \
    && /opt/understudy/bin/pip install --constraint constraints.txt --requirement dependencies.txt
COPY cli cli
COPY demo demo
COPY distill distill
COPY proxy proxy
COPY store store
RUN /opt/understudy/bin/pip install --no-deps .

FROM python:3.11-slim-bookworm
# OpenBLAS: MLX's own CPU multiplication is many times slower. tini: it reaps what students leave.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libopenblas0 tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --create-home --home-dir /var/lib/understudy understudy
COPY --from=build /opt/understudy /opt/understudy
ENV PATH=/opt/understudy/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    UNDERSTUDY_CONFIG=/etc/understudy/config.yaml
USER understudy
# Relative to here: data_dir, and the base students that Hugging Face's client keeps.
WORKDIR /var/lib/understudy
VOLUME /var/lib/understudy
EXPOSE 4100
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:4100/health', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--", "understudy"]
CMD ["serve"]
