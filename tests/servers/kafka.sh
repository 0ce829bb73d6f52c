#!/usr/bin/env bash
# One Apache Kafka broker on loopback, for tests: no ZooKeeper, no authority over anything but its own folder.
#
#   kafka.sh start DIR PORT [PID]   starts it with its data in DIR and waits until it answers; what DIR holds is kept.
#                                   When process PID is gone, the broker and DIR go too.
#   kafka.sh stop DIR               stops it cleanly
#   kafka.sh kill DIR               kills it, as a crash would
#   kafka.sh jars                   prints the folder of its jars, after fetching them
#
# Listeners: PORT in plain text; PORT+1 with SASL (PLAIN, SCRAM-SHA-256) for user "deltaworks", password "tide"; PORT+2 is its own;
# PORT+3 with TLS for clients with a certificate; PORT+4 with SASL over TLS. DIR/ca.pem is whom clients have to trust,
# DIR/client.p12 (password "harbour") the certificate of one that is let in.
# The jars come from Maven Central once, into KAFKA_JARS, by default target/servers below the repository. Exit code 3: mvn or
# java is missing, so that a test may be skipped.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
store_password=harbour
jars="${KAFKA_JARS:-$here/../../target/servers/kafka-4.1.0}"

missing() {
    echo "kafka.sh: $1 is not there: install $2 (apt-get install $2)" >&2
    exit 3
}
usage() {
    sed -n '2,13s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
need_java() {
    command -v java >/dev/null || missing java openjdk-17-jre-headless
}
# Complete or not there: the folder gets its name when all jars are in it.
fetch() {
    [ -d "$jars" ] && return
    command -v mvn >/dev/null || missing mvn maven
    mkdir -p "$(dirname "$jars")"
    local part
    part="$(mktemp -d "$jars.XXXXXX")"
    if ! mvn --batch-mode --quiet --file "$here/kafka.xml" dependency:copy-dependencies "-DoutputDirectory=$part" >"$part/mvn.log" 2>&1; then
        cat "$part/mvn.log" >&2
        rm -rf "$part"
        echo "kafka.sh: the jars could not be fetched" >&2
        exit 1
    fi
    rm -f "$part/mvn.log"
    # Somebody else may have been faster.
    mv -T "$part" "$jars" 2>/dev/null || rm -rf "$part"
}
java_run() {
    java -Xmx640m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.logFile=System.out \
        -Dorg.slf4j.simpleLogger.showDateTime=true -cp "$jars/*" "$@"
}
store() {
    # It lies beside java, which alone may be on the path.
    "$(dirname "$(readlink -f "$(command -v java)")")/keytool" -storetype PKCS12 -storepass "$store_password" "$@" >>"$dir/keytool.log" 2>&1 || { cat "$dir/keytool.log" >&2; exit 1; }
}
# Two certificates that vouch for themselves: the broker's and a client's.
certify() {
    [ -f "$dir/ca.pem" ] && return
    for name in broker client; do
        store -genkeypair -keystore "$dir/$name.p12" -alias "$name" -keyalg EC -validity 3650 -dname "CN=$name" \
            -ext "san=ip:127.0.0.1,dns:localhost"
        store -exportcert -rfc -keystore "$dir/$name.p12" -alias "$name" -file "$dir/$name.pem"
    done
    store -importcert -noprompt -keystore "$dir/trusted.p12" -alias client -file "$dir/client.pem"
    mv "$dir/broker.pem" "$dir/ca.pem"
}
configure() {
    certify
    cat >"$dir/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 2))
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,SASL_PLAINTEXT://127.0.0.1:$((port + 1)),CONTROLLER://127.0.0.1:$((port + 2)),SSL://127.0.0.1:$((port + 3)),SASL_SSL://127.0.0.1:$((port + 4))
advertised.listeners=PLAINTEXT://127.0.0.1:$port,SASL_PLAINTEXT://127.0.0.1:$((port + 1)),SSL://127.0.0.1:$((port + 3)),SASL_SSL://127.0.0.1:$((port + 4))
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL
ssl.keystore.type=PKCS12
ssl.keystore.location=$dir/broker.p12
ssl.keystore.password=$store_password
ssl.truststore.type=PKCS12
ssl.truststore.location=$dir/trusted.p12
ssl.truststore.password=$store_password
listener.name.ssl.ssl.client.auth=required
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_deltaworks="tide";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_deltaworks="tide";
listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
log.dirs=$dir/data
auto.create.topics.enable=false
num.partitions=1
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
message.max.bytes=8388608
log.cleaner.dedupe.buffer.size=16777216
PROPERTIES
    if [ ! -f "$dir/data/meta.properties" ]; then
        java_run kafka.tools.StorageTool format --config "$dir/server.properties" --cluster-id deltaworks-tests-00000 \
            --add-scram 'SCRAM-SHA-256=[name=deltaworks,password=tide]' >"$dir/format.log" 2>&1 \
            || { cat "$dir/format.log" >&2; exit 1; }
    fi
}
running() {
    [ -f "$dir/pid" ] && kill -0 "$(cat "$dir/pid")" 2>/dev/null
}
answers() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}
# Of its own session too: it outlives whoever kills the tests.
watch_owner() {
    setsid bash -c 'while kill -0 "$1" 2>/dev/null && kill -0 "$2" 2>/dev/null; do sleep 1; done
        kill -0 "$1" 2>/dev/null || { kill -KILL "$2" 2>/dev/null; rm -rf "$3"; }' \
        watch "$owner" "$(cat "$dir/pid")" "$dir" </dev/null >/dev/null 2>&1 &
}
start() {
    need_java
    fetch
    mkdir -p "$dir"
    dir="$(cd "$dir" && pwd)"
    running && { echo "kafka.sh: a broker runs in $dir already" >&2; exit 1; }
    answers "$port" && { echo "kafka.sh: port $port is taken" >&2; exit 1; }
    configure
    : >"$dir/server.log"
    (
        exec 0</dev/null 1>>"$dir/server.log" 2>&1
        # Of its own session: a Ctrl-C meant for the tests is not for the broker.
        exec setsid java -Xmx640m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.logFile=System.out \
            -Dorg.slf4j.simpleLogger.showDateTime=true -cp "$jars/*" kafka.Kafka "$dir/server.properties"
    ) &
    echo $! >"$dir/pid"
    [ -z "$owner" ] || watch_owner
    # "started" is said when every listener answers.
    for _ in $(seq 1200); do
        if grep -q "Kafka Server started" "$dir/server.log"; then
            return
        fi
        running || break
        sleep 0.1
    done
    tail -n 40 "$dir/server.log" >&2
    echo "kafka.sh: the broker did not start" >&2
    exit 1
}
finish() {
    [ -f "$dir/pid" ] || return 0
    local pid
    pid="$(cat "$dir/pid")"
    kill "-$1" "$pid" 2>/dev/null || true
    for _ in $(seq 300); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
    rm -f "$dir/pid"
}

[ $# -ge 1 ] || usage
command="$1"
dir="${2:-}"
port="${3:-}"
owner="${4:-}"
case "$command:$#" in
    start:3 | start:4) start ;;
    stop:2 | stop:3) finish TERM ;;
    kill:2 | kill:3) finish KILL ;;
    jars:1)
        fetch
        (cd "$jars" && pwd)
        ;;
    *) usage ;;
esac
