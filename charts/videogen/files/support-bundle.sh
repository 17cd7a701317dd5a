#!/usr/bin/env bash
# Collects what a maintainer needs to see of an installation, without secrets. It only reads; docs/operations.md says what is in it.
set -u -o pipefail
export LC_ALL=C # any bytes are text
umask 077

help() {
  cat <<'TEXT'
usage: support-bundle.sh [--namespace NAME]... [--operator-namespace NAME] [--since DURATION] [--output FILE]

Collects versions, TrainingRuns, FineTuneCycles, ModelReleases and what belongs to them, their events, the operator's settings, logs,
Lease and metrics, nodes, admission policies and roles into one archive. Needs bash, kubectl, awk and tar; kubectl takes the cluster from
KUBECONFIG, as always. Secrets are never read; what looks like a password or a token elsewhere is replaced by REDACTED.
What you may not read is left out and named in errors.txt.

  --namespace NAME           collect only objects of this namespace, and of the operator's own; may be given several times
  --operator-namespace NAME  where the operator is installed; default: where its Deployment is found, else videogen-system
  --since DURATION           how far back the operator's logs go, such as 90m or 48h; default: 24h
  --output FILE              the archive; default: videogen-support-<time>.tar.gz in the current folder
  --help                     this text
TEXT
}

refuse() {
  printf 'support-bundle.sh: %s\n' "$1" >&2
  exit 2
}

namespaces='' operator='' since=24h output=''
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) help && exit 0 ;;
    --namespace=* | --operator-namespace=* | --since=* | --output=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    --namespace | --operator-namespace | --since | --output) [ $# -gt 1 ] || refuse "$1 needs a value; see --help" ;;
    *) refuse "unknown argument $1; see --help" ;;
  esac
  case $1 in
    *namespace) [[ $2 =~ ^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$ ]] || refuse "$1 is '$2'; expected the name of a namespace" ;;
    --since) [[ $2 =~ ^([0-9]+[hms])+$ ]] || refuse "--since is '$2'; expected a duration such as 90m or 48h" ;;
    --output) [ -n "$2" ] || refuse "--output is empty; expected a file, such as support.tar.gz" ;;
  esac
  case $1 in
    --namespace) namespaces="$namespaces $2" ;;
    --operator-namespace) operator=$2 ;;
    --since) since=$2 ;;
    --output) output=$2 ;;
  esac
  shift 2
done
name=videogen-support-$(date -u +%Y%m%dT%H%M%SZ)
output=${output:-$name.tar.gz}
[ ! -e "$output" ] || refuse "$output exists already; name another file with --output"
[ -d "$(dirname -- "$output")" ] && [ -w "$(dirname -- "$output")" ] || refuse "$output cannot be written: $(dirname -- "$output") is no folder that you may write to"
for program in kubectl awk tar; do command -v "$program" >/dev/null || refuse "$program is not installed, and is needed"; done

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
bundle=$work/$name
mkdir "$bundle"
: >"$work/names" >"$bundle/errors.txt"

# What is read, one line after the other. kubectl's JSON has one name or value in a line, with all line breaks escaped.
# mode: json, text, log or metrics. allowed: the namespaces that logs and metrics may speak of; none: all.
read -r -d '' CLEAN <<'AWK'
BEGIN {
  hidden = 1
  R = "REDACTED"
  WORDS = "token|passw|passphrase|secret|credential|authorization|cookie|signature|api[-_.]?key|(access|private|client|account)[-_.]?key"
  NAME = "[a-z0-9_.-]*(" WORDS "|[-_.]key|[?&]key|u0026key|[?&]sig|u0026sig)[a-z0-9_.-]*"
  SPACE = "([ ]|[\\\\]+[nrt])*"
  QUOTE = "[\\\\]*[\"']"
  # A name and what follows it up to its value, or a variable of such a name.
  NAMED = NAME "[\\\\]*[\"']?[ ]*[:=][ ]*|name" QUOTE SPACE ":" SPACE QUOTE "[^\"'\\\\]*(" WORDS "|key|auth|header)[^\"'\\\\]*" QUOTE SPACE "," SPACE QUOTE "value" QUOTE SPACE ":" SPACE
  OF_ENVIRONMENT = WORDS "|key|auth|header|dsn"
  FLAG = "^--?" NAME "$"
  OURS = "^(videogen\\.pib\\.gov\\.in|kubernetes\\.io|[a-z.-]*\\.kubernetes\\.io|[a-z.-]*\\.k8s\\.io|prometheus\\.io|meta\\.helm\\.sh|helm\\.sh)/"
  count = split(allowed, given, " ")
  for (i = 1; i <= count; i++) may[given[i]] = 1
}
# How long the value at the beginning of s is: to its closing quote, or to a space, a quote or a line break.
function extent(s, line,   i, c, quote, before, level) {
  match(s, /^[\\]*["']?/)
  quote = substr(s, RLENGTH, 1)
  level = RLENGTH - 1
  if (quote != "\"" && quote != "'") { quote = ""; i = 1 } else i = RLENGTH + 1
  if (line && quote == "") { quote = "\""; level = 0 }
  for (before = 0; i <= length(s); i++) {
    c = substr(s, i, 1)
    if (quote != "" && c == quote && before <= level) return i - before - 1
    if (quote == "" && (c ~ /[ \t"']/ || (c == "\\" && substr(s, i + 1, 1) ~ /[nrt"]/))) return i - 1
    if (quote == "" && c == "\\") i++
    before = c == "\\" ? before + 1 : 0
  }
  return length(s)
}
# s without the values that follow the name of a secret.
function without(s,   out, name, value, start, size) {
  out = ""
  while (match(tolower(s), NAMED)) {
    name = tolower(substr(s, RSTART, RLENGTH))
    start = RSTART + RLENGTH
    out = out substr(s, 1, start - 1)
    s = substr(s, start)
    size = extent(s, name ~ /authorization|cookie/)
    value = substr(s, 1, size)
    if (value ~ /^([|>]|[\\]u003e)[0-9+-]*$/) return out R  # lines of YAML: where they end is not known here
    if (value ~ /^[[]/ && (size = index(s, "]"))) { out = out R; s = substr(s, size + 1); continue }
    match(value, /^[\\]*["']/)
    if (RLENGTH < 0 ? value !~ /^([{[]|null|true|false|None|True|False|REDACTED)?[],}]*$/ : length(value) > RLENGTH) value = substr(value, 1, RLENGTH) R
    out = out value
    s = substr(s, size + 1)
  }
  return out s
}
function scrub(s,   head) {
  while (match(s, /-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----/)) {
    head = substr(s, 1, RSTART - 1) R
    s = substr(s, RSTART + RLENGTH)
    inside = !match(s, /-----END [A-Z0-9 ]*PRIVATE KEY-----/)
    s = head (inside ? "" : substr(s, RSTART + RLENGTH))
  }
  gsub(/eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]*)?/, R, s)
  gsub(/(gh[a-z]_|github_pat_|glpat-|hf_|hvs\.|xox[a-z]-|AKIA|ASIA)[A-Za-z0-9_-]+/, R, s)
  gsub(/[Bb][Ee][Aa][Rr][Ee][Rr][ :=]+[A-Za-z0-9._~+\/=-]+/, "Bearer " R, s)
  gsub(/[Bb][Aa][Ss][Ii][Cc] +[A-Za-z0-9+\/][A-Za-z0-9+\/][A-Za-z0-9+\/][A-Za-z0-9+\/][A-Za-z0-9+\/=]+/, "Basic " R, s)
  gsub(/:\/\/[^ "'<>\/?#]*@/, "://" R "@", s)
  gsub(/:\/\/[^ "'<>\/@:]*:[^ "'<>]*@/, "://" R "@", s)
  if (s ~ /[:=]/) s = without(s)
  return s
}
# Whether a line of a log or of metrics speaks of a namespace that was not asked for, or may do so.
function foreign(line,   found, where) {
  found = 0
  while (match(line, /(namespace[="': ]+|namespaces\/|(TrainingRun|FineTuneCycle|ModelRelease|PyTorchJob|Pod|Job|Deployment|Service|HTTPRoute|ConfigMap|Lease|pod) )[a-z0-9-]+/)) {
    where = substr(line, RSTART, RLENGTH)
    line = substr(line, RSTART + RLENGTH)
    if (where !~ /^namespace/ && substr(line, 1, 1) != "/") continue
    sub(/^.*[^a-z0-9-]/, "", where)
    if (!(where in may)) return 1
    found = 1
  }
  return !found
}
function about_none(line) { return line ~ /^[^ ]+ [^ ]+ [A-Z]+ videogen_operator(\.watchdog|\.api_server\.(leadership|resync))?: / }
mode == "metrics" { if (count && /namespace="/ && foreign($0)) next; print scrub($0); next }
mode == "log" && count {
  if (/^[0-9][0-9][0-9][0-9]-/) hidden = foreign($0) && !(about_none($0) && !/[nN]amespace|\//)
  if (hidden) { left_out++; next }
}
mode != "json" {
  if (inside) { if (/-----END/) inside = 0; next }
  print scrub($0)
  next
}
{
  match($0, /^ */)
  indent = RLENGTH
  if (skipping) { if (indent == skipped && $0 ~ /^ *[]}]/) { skipping = 0; sub(/^ *[]}]/, ""); print begun "\"left out\"" $0 } next }
  key = ""
  body = substr($0, indent + 1)
  if (match(body, /^"([^"\\]|\\.)*": /)) { key = substr(body, 2, RLENGTH - 4); head = substr(body, 1, RLENGTH); body = substr(body, RLENGTH + 1) } else head = ""
  if (body ~ /[[{]$/ && (key == "managedFields" || key == "images")) { skipping = 1; skipped = indent; begun = substr($0, 1, indent) head; next }
  if (body ~ /[{]$/) delete named[indent + 4]
  if (body ~ /[[{]$/) listed[indent + 4] = body ~ /[[]$/ ? key : ""
  if (key == "annotations" && body ~ /[{]$/) annotated = indent + 4
  else if (indent < annotated) annotated = 0
  if (body !~ /^"/) { flag = 0; if (indent == 12 && key == "metadata") object = namespace = ""; print; if (indent == 8 && /^ *}/) print kind "/" namespace "/" object > names; next }
  comma = body ~ /,$/ ? "," : ""
  value = substr(body, 2, length(body) - length(comma) - 2)
  if (key == "name") named[indent] = value
  if (indent == 12 && key == "kind") kind = value
  if (indent == 16 && key == "name") object = value
  if (indent == 16 && key == "namespace") namespace = value
  lower = tolower(key == "value" ? named[indent] : key == "" ? listed[indent] : key)
  if (annotated && indent == annotated && (key !~ OURS || key ~ /\/(template|last-applied-configuration)$/)) value = R
  else if (key == "value" && lower ~ OF_ENVIRONMENT) value = R
  else if (lower ~ WORDS && lower !~ /(name|ref|policy|path|audience)s?$/) value = R
  else if (flag) value = R
  else value = scrub(value)
  flag = key == "" && tolower(value) ~ FLAG
  print substr($0, 1, indent) head "\"" value "\"" comma
}
END { if (left_out) print left_out " lines of other namespaces, or of which it is not known, are left out" }
AWK

clean() {
  awk -v mode="$1" -v allowed="${namespaces:+$namespaces $operator}" -v names="$work/new-names" "$CLEAN"
}

# collect FILE MODE ARGUMENTS...: what kubectl prints, cleaned; or why it cannot be read, as one line.
collect() {
  local file=$1 mode=$2 code
  shift 2
  mkdir -p "$bundle/$(dirname -- "$file")"
  : >"$work/new-names"
  kubectl --request-timeout=60s "$@" 2>"$work/stderr" | clean "$mode" >"$bundle/$file"
  code=${PIPESTATUS[0]}
  if [ "$code" -eq 0 ]; then
    cat "$work/new-names" >>"$work/names"
    return 0
  fi
  rm -f "$bundle/$file"
  printf '%s: %s\n' "$file" "$(tr '\n' ' ' <"$work/stderr" | clean text)" >>"${errors:-$bundle/errors.txt}"
  return 1
}

ask() {
  kubectl --request-timeout=60s "$@" 2>/dev/null
}

VERSION_OF='NAME:.metadata.name,SERVED:.spec.versions[?(@.served==true)].name,STORED:.status.storedVersions'
EVENTS='{{range .items}}{{or .lastTimestamp .eventTime .metadata.creationTimestamp}}{{"\t"}}{{.involvedObject.kind}}/{{.involvedObject.namespace}}/{{.involvedObject.name}}{{"\t"}}{{.type}}{{"\t"}}{{.reason}}{{"\t"}}{{printf "%q" .message}}{{"\n"}}{{end}}'
OF_THE_CHART=app.kubernetes.io/part-of=videogen
OF_THE_OPERATOR=app.kubernetes.io/managed-by=videogen-operator
GROUP=videogen.pib.gov.in
JOB_UID=kueue.x-k8s.io/job-uid

of_the_cluster() {
  collect versions.json json version --output=json
  collect definitions.txt text get customresourcedefinitions --ignore-not-found --output="custom-columns=$VERSION_OF" \
    {trainingruns,finetunecycles,modelreleases}.$GROUP pytorchjobs.kubeflow.org workloads.kueue.x-k8s.io \
    {gateways,httproutes}.gateway.networking.k8s.io {backendtrafficpolicies,httproutefilters}.gateway.envoyproxy.io
  collect nodes.json json get nodes --output=json
  for kind in validatingadmissionpolicies validatingadmissionpolicybindings clusterroles clusterrolebindings; do
    collect "chart/$kind.json" json get $kind --selector=$OF_THE_CHART --output=json
  done
}

of_the_operator() {
  local kind pod port found lease
  for kind in deployments replicasets pods services configmaps networkpolicies poddisruptionbudgets serviceaccounts roles rolebindings cronjobs jobs; do
    collect "operator/$kind.json" json get $kind --namespace="$operator" --selector=$OF_THE_CHART --output=json
  done
  collect operator/endpointslices.json json get endpointslices --namespace="$operator" --selector=endpointslice.kubernetes.io/managed-by=videogen-operator --output=json
  found=$(ask get deployments --namespace="$operator" --selector=app.kubernetes.io/name=videogen-operator --output='jsonpath={.items[*].metadata.name}')
  for lease in $found; do collect "operator/lease-$lease.json" json get lease "$lease" --namespace="$operator" --output=json; done
  found=$(ask get pods --namespace="$operator" --selector=app.kubernetes.io/name=videogen-operator \
    --output='jsonpath={range .items[*]}{.metadata.name}:{.spec.containers[?(@.name=="operator")].ports[?(@.name=="metrics")].containerPort}{"\n"}{end}')
  [ -n "$found" ] || printf 'operator: no pod of it is found in namespace %s; name its namespace with --operator-namespace\n' "$operator" >>"$bundle/errors.txt"
  for pod in $found; do
    port=${pod##*:} pod=${pod%:*}
    collect "operator/logs/$pod.log" log logs "$pod" --namespace="$operator" --container=operator --since="$since"
    case $(ask get pod "$pod" --namespace="$operator" --output='jsonpath={.status.containerStatuses[?(@.name=="operator")].restartCount}') in
      [1-9]*) collect "operator/logs/$pod.previous.log" log logs "$pod" --namespace="$operator" --container=operator --previous ;;
    esac
    metrics_of "$pod" "${port:-9090}"
  done
}

# Through the API server, which a NetworkPolicy may keep from the pod; else in the pod itself.
metrics_of() {
  local file=operator/metrics/$1.txt
  : >"$work/proxy" >"$work/exec"
  errors=$work/proxy collect "$file" metrics get --raw "/api/v1/namespaces/$operator/pods/$1:$2/proxy/metrics" && return
  errors=$work/exec collect "$file" metrics exec "$1" --namespace="$operator" --container=operator -- \
      python3 -c "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:$2/metrics', timeout=20).read().decode())" ||
    cat "$work/proxy" "$work/exec" >>"$bundle/errors.txt"
}

# of_objects FOLDER SCOPE: the three kinds in these namespaces, and what belongs to them.
of_objects() {
  local kind number=0 batch
  for kind in trainingruns finetunecycles modelreleases; do collect "$1/$kind.json" json get $kind.$GROUP "$2" --output=json; done
  for kind in pytorchjobs.kubeflow.org pods deployments.apps replicasets.apps services networkpolicies.networking.k8s.io poddisruptionbudgets.policy \
    httproutes.gateway.networking.k8s.io backendtrafficpolicies.gateway.envoyproxy.io httproutefilters.gateway.envoyproxy.io; do
    collect "$1/${kind%%.*}.json" json get $kind "$2" --selector=$OF_THE_OPERATOR --output=json
  done
  collect "$1/configmaps.json" json get configmaps "$2" --selector="$OF_THE_OPERATOR,$GROUP/run" --output=json
  collect "$1/persistentvolumeclaims.json" json get persistentvolumeclaims "$2" --selector=$GROUP/storage --output=json
  # Workloads of other jobs are none of ours, and no label but the job's UID tells.
  ask get pytorchjobs.kubeflow.org "$2" --selector=$OF_THE_OPERATOR --output='jsonpath={.items[*].metadata.uid}' | xargs -n 100 >"$work/uids"
  while read -r batch; do
    number=$((number + 1))
    [ -z "$batch" ] || collect "$1/workloads-$number.json" json get workloads.kueue.x-k8s.io "$2" --selector="$JOB_UID in (${batch// /,})" --output=json
  done <"$work/uids"
}

# Events of what was collected, and of the pods and ReplicaSets that it had.
events() {
  collect "$1/events.txt" text get events "$2" --output="go-template=$EVENTS" || return
  awk -F '\t' 'NR == FNR { known[$1] = 1; next }
    { about = $2; job = deployment = about; sub(/-(master|worker)-[0-9]+$/, "", job); sub(/^Pod\//, "PyTorchJob/", job)
      sub(/-[a-z0-9]+$/, "", deployment); if (about ~ /^Pod/) sub(/-[a-z0-9]+$/, "", deployment); sub(/^(Pod|ReplicaSet)\//, "Deployment/", deployment)
      if (about in known || job in known || deployment in known) print }' "$work/names" "$bundle/$1/events.txt" | sort >"$work/events"
  mv "$work/events" "$bundle/$1/events.txt"
}

kubectl --request-timeout=20s get --raw /version >/dev/null 2>"$work/stderr" || {
  printf 'support-bundle.sh: the cluster cannot be asked: %s\n' "$(tr '\n' ' ' <"$work/stderr" | clean text)" >&2
  exit 1
}
if [ -z "$operator" ]; then
  operator=$(ask get deployments --all-namespaces --selector=app.kubernetes.io/name=videogen-operator --output='jsonpath={.items[0].metadata.namespace}')
  operator=${operator:-videogen-system}
fi
of_the_cluster
of_the_operator
events operator "--namespace=$operator"
if [ -z "$namespaces" ]; then
  of_objects objects --all-namespaces
  events objects --all-namespaces
fi
for namespace in $namespaces; do
  ask get namespace "$namespace" --output=name >/dev/null || printf 'objects/%s: there is no such namespace, or you may not read it\n' "$namespace" >>"$bundle/errors.txt"
  of_objects "objects/$namespace" "--namespace=$namespace"
  events "objects/$namespace" "--namespace=$namespace"
done
missing=$(wc -l <"$bundle/errors.txt" | tr -d ' ')
{
  printf 'made at: %s\nnamespaces: %s\noperator in: %s\nlogs of the last: %s\n' "$name" "${namespaces:-all}" "$operator" "$since"
  printf 'not read, see errors.txt: %s\nfiles:\n' "$missing"
  (cd "$bundle" && find . -type f | sort | sed 's|^\./|  |')
} >"$work/summary" && mv "$work/summary" "$bundle/summary.txt"
tar -czf - -C "$work" "$name" >"$output" || exit 1
printf '%s: %s files; %s could not be read (errors.txt). Look through it before you pass it on.\n' "$output" "$(find "$bundle" -type f | wc -l | tr -d ' ')" "$missing"
