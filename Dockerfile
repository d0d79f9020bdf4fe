# The image of every pod of kuberay.yaml: Ray, foredraft in pinned versions, the studies.
#
#   docker build --tag REGISTRY/foredraft:0.1.0 . && docker push REGISTRY/foredraft:0.1.0
#
# The base's Ray and Python are those of constraints.txt: nodes of other versions do not join.
FROM rayproject/ray:2.60.0-py311-gpu

WORKDIR /home/ray/foredraft
# What changes seldom comes first: a change of the code builds the last layers alone.
COPY --chown=ray:users pyproject.toml constraints.txt README.md LICENSE ./
COPY --chown=ray:users search_spaces search_spaces
COPY --chown=ray:users models models
COPY --chown=ray:users platform platform
# Editable, so that a job may bring newer code in its working directory. Compiled here, as pods may
# have a read-only file system.
RUN pip install --no-cache-dir --constraint constraints.txt --editable '.[s3]' \
    && python -m compileall -q models platform

USER ray
