#!/bin/sh
# An answer by curl alone, streamed as it comes, from the gateway on this machine.
#
#     python -m p2p.node gateway                         # in another terminal
#     examples/curl.sh bombyx/smollm2-135m-instruct "What is silk?"
#
# MODEL is one that `curl $OPENAI_BASE_URL/models` lists. The question may have no quotes in it: this is only a shell.
set -eu
MODEL=$1 QUESTION=$2

curl --silent --show-error --fail-with-body --no-buffer "${OPENAI_BASE_URL:-http://127.0.0.1:8642/v1}/chat/completions" \
    --header "Content-Type: application/json" \
    --header "Authorization: Bearer ${OPENAI_API_KEY:-none}" \
    --data "{\"model\": \"$MODEL\", \"stream\": true, \"messages\": [{\"role\": \"user\", \"content\": \"$QUESTION\"}]}"
