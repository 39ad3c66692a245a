#!/usr/bin/env bash
# A real Apache Kafka on loopback, for the scenarios in tests/ and for trying things by hand.
#
#   kafka.sh fetch                            copies the jars into the cache and prints their directory
#   kafka.sh run DIR PORT CONTROLLER_PORT [BEHIND_PORT ADVERTISED_PORT]
#                                             runs a node in the foreground; this process becomes the node. With the last two it also listens on
#                                             BEHIND_PORT, and tells who asks there that it is found on ADVERTISED_PORT: a proxy's
#   kafka.sh start DIR PORT                   runs one in the background (controller on PORT + 1), returns when it answers
#   kafka.sh stop DIR                         stops the node that `start DIR` started
#   kafka.sh topics ARGUMENT...               Kafka's own kafka-topics
#
# DIR keeps everything of a node: server.properties, data, broker.log, pid. A node started again in the same DIR has its data again.
# Needs Java 17 or newer, and Maven for the first fetch. The cache is $HARK_CACHE, else ~/.cache/hark, else target/ in the clone.
set -euo pipefail
shopt -s inherit_errexit

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

die() {
  echo "kafka.sh: $*" >&2
  exit 1
}

cache_directory() {
  local wanted="${HARK_CACHE:-${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/hark}"
  if mkdir -p "$wanted/kafka" 2>/dev/null && [[ -w "$wanted/kafka" ]]; then
    echo "$wanted/kafka"
  else
    mkdir -p "$here/../../target/kafka"
    (cd "$here/../../target/kafka" && pwd)
  fi
}

# The directory is named after the pom, so that a new version never mixes with an old one, and appears whole or not at all.
fetch() {
  local cache name libs
  cache="$(cache_directory)"
  name="$(sha256sum "$here/pom.xml" | cut -c1-12)"
  libs="$cache/$name"
  if [[ ! -d "$libs" ]]; then
    command -v mvn >/dev/null || die "mvn is missing: install maven, or copy the jars of pom.xml to $libs"
    exec 9>"$cache/lock"
    flock 9
    if [[ ! -d "$libs" ]]; then
      rm -rf "$libs.part"
      mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime "-DoutputDirectory=$libs.part" >&2
      mv "$libs.part" "$libs"
    fi
    exec 9>&-
  fi
  echo "$libs"
}

# Sets `java` to the command line up to the main class. The wildcard is for java, not for the shell.
prepare_java() {
  command -v java >/dev/null || die "java is missing: install a Java 17 runtime"
  java=(java -Xms64m "-Xmx${1}m" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 "-Dlog4j2.configurationFile=$here/log4j2.properties" -cp "$(fetch)/*")
}

run() {
  local dir="$1" port="$2" controller_port="$3" behind="${4:+,BEHIND://127.0.0.1:$4}" advertised="${5:+,BEHIND://127.0.0.1:$5}" cluster
  mkdir -p "$dir"
  dir="$(cd "$dir" && pwd)"
  sed -e "s|@DIR@|$dir|g" -e "s|@PORT@|$port|g" -e "s|@CONTROLLER_PORT@|$controller_port|g" \
    -e "s|@BEHIND@|$behind|g" -e "s|@ADVERTISED@|$advertised|g" "$here/server.properties" >"$dir/server.properties"
  prepare_java 512
  if [[ ! -e "$dir/data/meta.properties" ]]; then
    cluster="$("${java[@]}" kafka.tools.StorageTool random-uuid)"
    "${java[@]}" kafka.tools.StorageTool format -t "$cluster" -c "$dir/server.properties"
  fi
  exec "${java[@]}" kafka.Kafka "$dir/server.properties"
}

topics() {
  prepare_java 128
  exec "${java[@]}" org.apache.kafka.tools.TopicCommand "$@"
}

# The pid in DIR/pid, if it still is a node of that directory and not a stranger that got the number later.
own_pid() {
  local pid
  pid="$(cat "$1/pid" 2>/dev/null)" || return 1
  tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$1" || return 1
  echo "$pid"
}

start() {
  local dir="$1" port="$2" pid
  mkdir -p "$dir"
  dir="$(cd "$dir" && pwd)"
  ! own_pid "$dir" >/dev/null || die "a node already runs in $dir"
  fetch >/dev/null
  bash "$here/kafka.sh" run "$dir" "$port" "$((port + 1))" >>"$dir/broker.log" 2>&1 </dev/null &
  pid=$!
  echo "$pid" >"$dir/pid"
  for _ in {1..60}; do
    kill -0 "$pid" 2>/dev/null || die "the node ended; see $dir/broker.log"
    # A connection first: it costs nothing, the metadata request costs a start of Java.
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && bash "$here/kafka.sh" topics --bootstrap-server "127.0.0.1:$port" --list >/dev/null; then
      echo "127.0.0.1:$port"
      return
    fi
    sleep 1
  done
  kill "$pid"
  die "no answer on 127.0.0.1:$port within 60 s; see $dir/broker.log"
}

stop() {
  local dir pid
  dir="$(cd "$1" && pwd)"
  pid="$(own_pid "$dir")" || die "no node runs in $dir"
  kill "$pid"
  for _ in {1..300}; do
    kill -0 "$pid" 2>/dev/null || { rm -f "$dir/pid"; return; }
    sleep 0.1
  done
  kill -9 "$pid"
  rm -f "$dir/pid"
}

case "${1:-}/$#" in
fetch/1) fetch ;;
run/4 | run/6) run "${@:2}" ;;
start/3) start "$2" "$3" ;;
stop/2) stop "$2" ;;
topics/*) shift && topics "$@" ;;
*) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2 && exit 2 ;;
esac
