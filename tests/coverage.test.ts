/** 100 % of the endpoints of the running platform are protected, and one that is not is found; `soma why` explains. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { LoginStore, loginFolder } from '../cli/login-store.ts';
import { loginAs, logout } from './attacks/world.ts';
import { get, kubectl, kubectlWith } from './support/kubectl.ts';
import { address, call, tokenOf } from './support/session-api.ts';

const root = join(import.meta.dirname, '..');
const namespace = 'local-services';
const state = mkdtempSync(join(tmpdir(), 'somagent-coverage-'));
const env = { ...process.env, XDG_STATE_HOME: state };
let operator: Awaited<ReturnType<typeof loginAs>>;

interface Gap {
  readonly service: string;
  readonly pod: string;
  readonly endpoint: string;
  readonly problems: readonly string[];
}

interface Report {
  readonly endpoints: number;
  readonly protected: number;
  readonly gaps: readonly Gap[];
}

interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs the command as operator-1, who is signed in for this test only. */
function soma(...args: string[]): Promise<Ran> {
  return new Promise((resolve) => {
    const command = [join(root, 'cli', 'main.ts'), ...args];
    execFile(process.execPath, command, { env, cwd: root, maxBuffer: 16 << 20 }, (error, out, err) =>
      resolve({ code: error === null ? 0 : Number(error.code ?? 1), out, err }),
    );
  });
}

async function signIn(): Promise<void> {
  operator = await loginAs('operator-1');
  await mkdir(loginFolder(env) ?? '', { recursive: true, mode: 0o700 });
  new LoginStore(env).write({
    issuer: address('SOMA_ISSUER_URL', 'issuerUrl'),
    username: 'operator-1',
    accessToken: operator.access,
    refreshToken: operator.refresh,
    expiresAt: Date.now() + 200_000,
  });
}

/** A pod of the platform whose server asks nobody who he is: what a careless service would be. */
function careless(image: string) {
  const server = `
    const fs = require('node:fs');
    const list = [{ method: 'GET', path: '/open/{id}', operationId: null, capability: null, relation: null, audit: null }];
    require('node:http').createServer((_, answer) => answer.end(JSON.stringify(list))).listen(8081);
    const tls = { cert: fs.readFileSync('/tls/tls.crt'), key: fs.readFileSync('/tls/tls.key') };
    require('node:https').createServer(tls, (_, answer) => answer.end('{"secret":"everything"}')).listen(8443);`;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name: 'careless',
      namespace,
      labels: { 'app.kubernetes.io/part-of': 'somagent', 'app.kubernetes.io/name': 'careless' },
    },
    spec: {
      terminationGracePeriodSeconds: 0,
      automountServiceAccountToken: false,
      securityContext: {
        runAsNonRoot: true,
        runAsUser: 10001,
        fsGroup: 10001,
        seccompProfile: { type: 'RuntimeDefault' },
      },
      containers: [
        {
          name: 'server',
          image,
          command: ['node', '-e', server],
          ports: [
            { name: 'health', containerPort: 8081 },
            { name: 'https', containerPort: 8443 },
          ],
          resources: { requests: { cpu: '5m', memory: '48Mi' }, limits: { memory: '128Mi' } },
          securityContext: {
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
            capabilities: { drop: ['ALL'] },
          },
          volumeMounts: [{ name: 'tls', mountPath: '/tls', readOnly: true }],
          readinessProbe: { httpGet: { port: 8081, path: '/readyz' }, periodSeconds: 1 },
        },
      ],
      volumes: [{ name: 'tls', secret: { secretName: 'gateway-tls', defaultMode: 0o440 } }],
    },
  };
}

describe('coverage', { timeout: 300_000 }, () => {
  before(signIn);
  after(async () => {
    await kubectl('delete', 'pod', 'careless', '-n', namespace, '--ignore-not-found', '--wait=true');
    await logout(operator);
    rmSync(state, { recursive: true, force: true });
  });

  test('every endpoint of every running pod is protected', async () => {
    const { code, out, err } = await soma('coverage', '--json');
    const report = JSON.parse(out) as Report;
    assert.deepEqual(report.gaps, [], err);
    assert.equal(code, 0, err);
    assert.equal(report.protected, report.endpoints);
    // Two gateways of eight routes each, identity and audit: were the list empty, 100 % would say nothing.
    assert.ok(report.endpoints > 40, `${report.endpoints} endpoints`);
  });

  test('an endpoint that asks nobody who he is is found on the platform', async () => {
    const { items } = await get<{ items: { spec: { containers: { image: string }[] } }[] }>(
      ...['pods', '-n', namespace, '-l', 'app.kubernetes.io/name=gateway'],
    );
    await kubectlWith(careless(items[0]?.spec.containers[0]?.image ?? ''), 'apply', '-f', '-');
    await kubectl('wait', '--for=condition=Ready', 'pod/careless', '-n', namespace, '--timeout=120s');
    const { code, out } = await soma('coverage', '--json');
    const { gaps } = JSON.parse(out) as Report;
    assert.equal(code, 1);
    assert.deepEqual(gaps, [
      {
        service: 'careless',
        pod: `${namespace}/careless`,
        endpoint: 'GET /open/{id}',
        problems: ['it was added past declareRoute(): no capability, no audit class', 'without a token it answers 200'],
      },
    ]);
  });

  test('soma why explains an allowed and a denied request in words', async () => {
    const token = await tokenOf('acme-agent');
    const allowed = await call('/v1/sessions', { token });
    const ofAllowed = await soma('why', String(allowed.headers['x-request-id']));
    assert.equal(ofAllowed.code, 0, ofAllowed.err);
    assert.match(ofAllowed.out, /^verdict {3}allowed: a role of the subject has session:read$/m);
    assert.match(ofAllowed.out, /^who {7}service account \S+ of tenant acme, through acme-agent$/m);
    assert.match(ofAllowed.out, /^rule {6}soma\.gateway\.allow_by_role, explained in policies\/gateway\/README\.md$/m);
    assert.match(ofAllowed.out, /^bundle {4}revision [0-9a-f]{12,}$/m);

    const denied = await call('/v1/sessions');
    const ofDenied = await soma('why', String(denied.headers['x-request-id']));
    assert.match(ofDenied.out, /^verdict {3}denied: /m);
    assert.match(ofDenied.out, /^rule {6}soma\.governance\.token_missing/m);
    assert.match(ofDenied.out, /answered with 401$/m);
  });

  test('soma why says plainly when there is no such verdict', async () => {
    const { code, err } = await soma('why', '00000000-0000-4000-8000-000000000000');
    assert.notEqual(code, 0);
    assert.match(err, /no verdict about request 0{8}-/);
  });
});
