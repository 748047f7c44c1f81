#!/bin/sh
# Runs a command as on a machine of its own, beside a running cluster: own network, processes, mounts, control groups
# and places that programs write to. Used by lifecycle.ts, which starts it under unshare(1).
set -eu
ip link set lo up
mount --make-rprivate /
# Mounts of the other cluster were copied into this namespace; here they would only hide under ours.
awk '{ print $5 }' /proc/self/mountinfo | grep -E "^(/var/lib/somagent|/run/somagent|/run/netns)" | sort -r |
  while read -r point; do umount --lazy "$point"; done
for folder in /run /var/lib/cni /var/lib/kubelet /var/log "$SANDBOX_REPOSITORY/.soma"; do
  mkdir -p "$folder"
  mount -t tmpfs sandbox "$folder"
done
if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
  mkdir /run/cgroup
  for root in /sys/fs/cgroup/*; do
    if [ -L "$root" ] || [ ! -e "$root/cgroup.procs" ]; then continue; fi
    mkdir -p "$root/sandbox" "/run/cgroup/${root##*/}"
    # A new cpuset has no processors: nothing can enter it until it has.
    if [ -e "$root/cpuset.cpus" ]; then
      cat "$root/cpuset.cpus" > "$root/sandbox/cpuset.cpus"
      cat "$root/cpuset.mems" > "$root/sandbox/cpuset.mems"
    fi
    mount --bind "$root/sandbox" "/run/cgroup/${root##*/}"
  done
  umount --recursive /sys/fs/cgroup
  mount -t tmpfs sandbox /sys/fs/cgroup
  for root in /run/cgroup/*; do
    mkdir "/sys/fs/cgroup/${root##*/}"
    mount --move "$root" "/sys/fs/cgroup/${root##*/}"
  done
fi
"$@"
