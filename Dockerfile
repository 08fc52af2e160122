# One image for logfwd, logreceiver and logbench: exactly the locked versions, without build tools, not running as root.
FROM python:3.13-slim AS build
RUN pip install --no-cache-dir uv
ENV UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PROJECT_ENVIRONMENT=/opt/logfwd
WORKDIR /src
COPY pyproject.toml uv.lock ./
RUN uv sync --frozen --no-install-project
COPY README.md LICENSE ./
COPY streams streams
COPY logfwd logfwd
COPY logreceiver logreceiver
COPY bench bench
RUN uv sync --frozen --no-editable

FROM python:3.13-slim
# A new volume takes its owner from the directory that it is mounted over.
RUN useradd --system --uid 10001 --no-create-home logfwd \
 && install -d -o logfwd -m 0755 /etc/logfwd /var/lib/logfwd /var/lib/logreceiver /var/log/http \
 && install -d -o logfwd -m 0700 /etc/logfwd/pki /etc/logfwd/forwarder /etc/logfwd/receiver
COPY --from=build /opt/logfwd /opt/logfwd
ENV PATH=/opt/logfwd/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER logfwd
CMD ["logfwd", "--help"]
