# The keeper in a container: docs/install.md says how it is run. Built in two stages, so that neither pip's cache nor
# the sources are in the image that runs.
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
# strip, from whichever binutils the base's release has.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*
# First what changes rarely: the pinned dependencies are a layer of their own.
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN python -m venv /opt/keeper \
 && python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print('\n'.join(p['dependencies'] + p['optional-dependencies']['postgres']))" > dependencies.txt \
 && /opt/keeper/bin/pip install --constraint constraints.txt --requirement dependencies.txt \
 # Debug information is a fifth of it all. Not later: the reference program is a .so too, for another machine.
 && find /opt/keeper -name '*.so' -exec strip --strip-unneeded {} +
COPY hatch_build.py ./
COPY keeper keeper
# Which commit it is, for `keeper --version`: the sources come without their history.
ARG COMMIT=
RUN QUANTDESK_COMMIT=$COMMIT /opt/keeper/bin/pip install --constraint constraints.txt --no-deps . \
 && /opt/keeper/bin/python -m compileall -q /opt/keeper \
 && /opt/keeper/bin/pip uninstall --yes setuptools pip

FROM python:3.11.14-slim-bookworm
RUN groupadd --gid 10001 keeper \
 && useradd --uid 10001 --gid keeper --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin keeper \
 && install --directory --owner keeper --group keeper --mode 0700 /var/lib/keeper
COPY --from=build /opt/keeper /opt/keeper
# Nothing but /var/lib/keeper is ever written: the root file system can be read-only.
ENV PATH=/opt/keeper/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    KEEPER_JOURNAL__PATH=/var/lib/keeper/journal.sqlite \
    KEEPER_HTTP__HOST=0.0.0.0 \
    KEEPER_LOG__FORMAT=json
USER 10001:10001
VOLUME /var/lib/keeper
EXPOSE 8080
# Its API says whether orders are watched, executed and accepted.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 CMD ["keeper", "check", "--ready"]
# Exec form: the keeper is process 1 and gets the signals. SIGTERM lets it write down what is under way.
STOPSIGNAL SIGTERM
ENTRYPOINT ["keeper"]
CMD ["run"]
