# Two images from one checkout: `worker` answers events without torch, `training` trains with torch.
#
#   docker build --target worker -t shopstream .
#   docker build --target training -t shopstream-training .

FROM python:3.11-slim AS python
# numba caches compiled functions on disk; the code folder belongs to root, so the cache goes to a writable folder.
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 NUMBA_CACHE_DIR=/tmp/numba
RUN python -m venv /opt/venv

FROM python AS worker-environment
COPY requirements/worker.txt /tmp/
RUN pip install --no-cache-dir --no-deps --require-hashes -r /tmp/worker.txt

FROM python AS training-environment
COPY requirements/training.txt requirements/torch.txt /tmp/
RUN pip install --no-cache-dir --no-deps --require-hashes -r /tmp/training.txt -r /tmp/torch.txt

FROM python AS base
# A new volume gets the owner of the folder it is mounted over.
RUN useradd --uid 10001 --no-create-home shopstream && install -d -o shopstream -g shopstream /bundles /joiner
WORKDIR /shopstream
COPY features.toml shop.toml ./
COPY contract/ contract/
COPY transport/ transport/
ENV SHOPSTREAM_BUNDLES=/bundles SHOPSTREAM_FEEDBACK__STORE=/joiner
USER shopstream

FROM base AS training
COPY --from=training-environment /opt/venv /opt/venv
COPY model/ model/
COPY export/ export/
COPY training/ training/
CMD ["python", "-m", "training", "follow"]

# A build without a target builds the last stage.
FROM base AS worker
# A worker is one core: its matrix products should not take time from the other workers.
ENV OPENBLAS_NUM_THREADS=1
COPY --from=worker-environment /opt/venv /opt/venv
COPY worker/ worker/
EXPOSE 9100
CMD ["python", "-m", "worker", "score", "--lane", "orders"]
