# Two images of one checkout: `worker` answers events and carries no torch, `training` learns and does.
#
#   docker build --target worker -t shopstream .
#   docker build --target training -t shopstream-training .

FROM python:3.11-slim AS python
# Compiled folds are kept by numba; the code's own folder belongs to root, so they go where the user may write.
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 NUMBA_CACHE_DIR=/tmp/numba
RUN python -m venv /opt/venv

FROM python AS worker-environment
COPY requirements/worker.txt /tmp/
RUN pip install --no-cache-dir --no-deps --require-hashes -r /tmp/worker.txt

FROM python AS training-environment
COPY requirements/training.txt requirements/torch.txt /tmp/
RUN pip install --no-cache-dir --no-deps --require-hashes -r /tmp/training.txt -r /tmp/torch.txt

FROM python AS house
# Volumes take the owner of the folder that they are mounted over.
RUN useradd --uid 10001 --no-create-home shopstream && install -d -o shopstream -g shopstream /bundles
WORKDIR /shopstream
COPY features.toml shop.toml ./
COPY contract/ contract/
COPY transport/ transport/
ENV SHOPSTREAM_BUNDLES=/bundles
USER shopstream

FROM house AS training
COPY --from=training-environment /opt/venv /opt/venv
COPY model/ model/
COPY export/ export/
COPY training/ training/
CMD ["python", "-m", "training", "follow"]

# The last one is what a build without a target gives.
FROM house AS worker
COPY --from=worker-environment /opt/venv /opt/venv
COPY worker/ worker/
EXPOSE 9100
CMD ["python", "-m", "worker", "score", "--lane", "orders"]
