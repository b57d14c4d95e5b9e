#!/bin/sh
# The `llm` command line over the gateway on this machine: `llm -m MODEL …` works afterwards, anywhere.
#
#     pip install llm
#     python -m p2p.node gateway                         # in another terminal
#     examples/llm_command.sh MODEL "What is silk?"
#
# It adds the model to llm's own list of OpenAI-compatible models, if it is not there yet.
set -eu
MODEL=$1 QUESTION=$2

LIST=$(dirname "$(llm logs path)")/extra-openai-models.yaml
grep -qsF "model_name: $MODEL" "$LIST" || cat >>"$LIST" <<END
- model_id: $MODEL
  model_name: $MODEL
  api_base: ${OPENAI_BASE_URL:-http://127.0.0.1:8642/v1}
END
llm -m "$MODEL" "$QUESTION"
