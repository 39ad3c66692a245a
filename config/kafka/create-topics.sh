#!/usr/bin/env bash
# Creates Hark's topics with Kafka's own kafka-topics.sh. May be run again: topics that exist are left as they are, and shown.
#
#   create-topics.sh BOOTSTRAP [PREFIX] [ARGUMENT...]
#
#   BOOTSTRAP      host:port of the cluster
#   PREFIX         before each name, `hark.` if not given; the same as `topic_prefix` in hark.toml
#   ARGUMENT...    handed to kafka-topics.sh, for instance --command-config admin.properties
#
#   KAFKA_TOPICS   the tool, if it is not on the path as kafka-topics.sh or kafka-topics
#   REPLICATION    copies of each partition, 3 if not given; with 3 or more, writes need one less of them (min.insync.replicas)
set -euo pipefail

if [[ $# -lt 1 || "$1" == -* ]]; then
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
fi
bootstrap="$1"
prefix="${2-hark.}"
arguments=("${@:3}")
replication="${REPLICATION:-3}"
tool="${KAFKA_TOPICS:-$(command -v kafka-topics.sh || command -v kafka-topics || true)}"
if [[ -z "$tool" ]]; then
  echo "create-topics.sh: kafka-topics.sh is not on the path; name it in KAFKA_TOPICS" >&2
  exit 1
fi

durability=()
if ((replication >= 3)); then
  durability=(--config "min.insync.replicas=$((replication - 1))")
fi

while read -r name partitions settings; do
  [[ "$name" == \#* || -z "$name" ]] && continue
  configs=()
  for setting in $settings; do
    configs+=(--config "$setting")
  done
  "$tool" --bootstrap-server "$bootstrap" "${arguments[@]}" --create --if-not-exists --topic "$prefix$name" --partitions "$partitions" \
    --replication-factor "$replication" "${configs[@]}" "${durability[@]}" </dev/null
done <"$(dirname "${BASH_SOURCE[0]}")/topics.txt"

# A topic that existed may have other settings: the agent checks names only, a person sees the settings here.
"$tool" --bootstrap-server "$bootstrap" "${arguments[@]}" --describe --topic "${prefix//./\\.}.*" </dev/null | grep -F 'TopicId'
