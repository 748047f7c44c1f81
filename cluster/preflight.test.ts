import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Probes, preflight } from './preflight.ts';

const gibibyte = 2 ** 30;

/** A machine on which nothing is in the way, but for what a test says. */
function machine(faults: Partial<Probes> = {}): Probes {
  return {
    platform: 'linux',
    uid: 0,
    totalMemory: 16 * gibibyte,
    stateFolder: '/var/lib/somagent',
    cacheFolder: '/home/somebody/.cache/somagent',
    provided: () => true,
    freeBytes: () => 100 * gibibyte,
    listener: async () => 'nobody',
    failureOf: async () => undefined,
    controllers: () => ['cpu', 'cpuset', 'memory', 'pids', 'devices'],
    foreignNodePrograms: () => [],
    goVersion: async () => 'go1.26.8',
    toBuild: () => 5,
    ...faults,
  };
}

test('a good machine has no problem, and neither has one on which the cluster runs already', async () => {
  assert.deepEqual(await preflight(machine()), []);
  assert.deepEqual(await preflight(machine({ listener: async () => 'us' })), []);
});

test('a taken port is named with who holds it and what needs it', async () => {
  const listener = async (port: number) => (port === 8443 ? 'nginx (pid 812)' : 'nobody');
  const problems = await preflight(machine({ listener }));
  assert.deepEqual(
    problems.map(({ what, why }) => [what, why]),
    [['port 127.0.0.1:8443 is taken by nginx (pid 812)', 'the gateway of the local cluster is reached there']],
  );
  assert.match(problems[0]?.fix ?? '', /end nginx \(pid 812\).*sport = :8443/);
});

test('a full disk is named with its folder, what is left and what is needed', async () => {
  const freeBytes = (folder: string) => (folder === '/var/lib/somagent' ? 1.5 : 100) * gibibyte;
  const [problem, ...more] = await preflight(machine({ freeBytes }));
  assert.equal(problem?.what, 'disk full: /var/lib/somagent (state) has 1.5 GiB left, needed are 10.0 GiB');
  assert.match(problem?.fix ?? '', /SOMAGENT_STATE_DIR/);
  assert.deepEqual(more, []);
});

test('caches need room for a build only while something has yet to be built', async () => {
  const freeBytes = (folder: string) => (folder.includes('cache') ? 12 : 100) * gibibyte;
  assert.equal((await preflight(machine({ freeBytes }))).length, 1);
  assert.deepEqual(await preflight(machine({ freeBytes, toBuild: () => 0 })), []);
});

test('missing packages are named with the command that installs exactly them, and nothing else is tried', async () => {
  const provided = (program: string) => !['etcd', '/usr/lib/cni/ptp'].includes(program);
  const failureOf = async () => assert.fail('a check ran that needs the packages');
  const problems = await preflight(machine({ provided, failureOf }));
  assert.deepEqual(problems, [
    {
      what: 'missing: etcd (package etcd-server), /usr/lib/cni/ptp (package containernetworking-plugins)',
      why: 'etcd-server: store of the API server; containernetworking-plugins: network of pods',
      fix: 'apt-get install --no-install-recommends etcd-server containernetworking-plugins',
    },
  ]);
});

test('each other fault convicts alone', async () => {
  const cases: readonly [Partial<Probes>, RegExp][] = [
    [{ platform: 'darwin' }, /runs on Linux only, this is darwin/],
    [{ uid: 1000 }, /started by root, you are user 1000/],
    [{ totalMemory: 4 * gibibyte }, /memory: 4\.0 GiB, needed are 8\.0 GiB/],
    [{ controllers: () => ['cpu', 'cpuset', 'pids'] }, /controllers are missing: memory$/],
    [{ foreignNodePrograms: () => ['k3s (pid 77)'] }, /another Kubernetes node runs on this machine: k3s \(pid 77\)/],
    [{ goVersion: async () => undefined }, /there is no Go compiler/],
    [{ goVersion: async () => 'go1.19.8' }, /Go is too old: go1\.19\.8/],
    [
      {
        failureOf: async (script) =>
          script.includes('overlay') ? 'mount: unknown filesystem type overlay' : undefined,
      },
      /does not give: overlay file system \(mount: unknown filesystem type overlay\)/,
    ],
  ];
  for (const [fault, expected] of cases) {
    const problems = await preflight(machine(fault));
    assert.equal(problems.length, 1, String(expected));
    assert.match(problems[0]?.what ?? '', expected);
  }
});

test('an old compiler is no problem when nothing has to be built', async () => {
  assert.deepEqual(await preflight(machine({ goVersion: async () => undefined, toBuild: () => 0 })), []);
});
