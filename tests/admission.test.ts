/** Admission on the cluster: what the deploy policy refuses in a preview, the API server refuses too. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { imageReference } from '@somagent/images';
import { get, kubectlWith } from './support/kubectl.ts';
import { eventually } from './support/wait.ts';

const namespace = 'local-services';
const image = imageReference('node', { registry: 'localhost:5000' });

interface Pod {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace: string };
  readonly spec: { hostPID?: boolean; containers: Container[] };
}

interface Container {
  image: string;
  securityContext: Record<string, unknown>;
  [field: string]: unknown;
}

function pod(change: (container: Container, pod: Pod) => void = () => undefined, home = namespace): Pod {
  const container: Container = {
    name: 'probe',
    image,
    command: ['node', '-e', '0'],
    resources: { requests: { cpu: '10m', memory: '16Mi' }, limits: { memory: '64Mi', cpu: '1' } },
    securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ['ALL'] } },
  };
  const object = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: `probe-${randomBytes(3).toString('hex')}`, namespace: home },
    spec: {
      automountServiceAccountToken: false,
      securityContext: { runAsNonRoot: true, runAsUser: 10001, seccompProfile: { type: 'RuntimeDefault' } },
      containers: [container],
    },
  };
  change(container, object);
  return object;
}

/** Asks the API server without making anything: admission is the same. */
const offer = (object: object) => kubectlWith(object, 'create', '--dry-run=server', '-f', '-');

interface Configuration {
  readonly webhooks?: readonly {
    readonly failurePolicy: string;
    readonly clientConfig: { readonly caBundle?: string };
  }[];
}

describe('admission by OPA', () => {
  it('is in force, fails closed, and trusts the authority of the region', async () => {
    const webhooks = await eventually('the webhook in force', 60, async () => {
      const { webhooks: found = [] } = await get<Configuration>('validatingwebhookconfiguration', 'somagent-local-opa');
      return found.length === 1 ? found : undefined;
    });
    const authority = await get<{ data: { 'tls.crt': string } }>('secret', '-n', 'local-system', 'region-ca');
    assert.equal(webhooks[0]?.failurePolicy, 'Fail');
    assert.equal(webhooks[0]?.clientConfig.caBundle, authority.data['tls.crt']);
  });

  it('admits a pod that keeps every rule', async () => {
    assert.match(await offer(pod()), /created \(server dry run\)/);
  });

  const refused: readonly [string, RegExp, (container: Container, object: Pod) => void][] = [
    [
      'a writable root file system',
      /soma\.deploy\.deny_writable_root: Pod \S+ container probe lacks readOnlyRootFilesystem: true/,
      (container) => {
        container.securityContext.readOnlyRootFilesystem = false;
      },
    ],
    [
      'an image of another registry',
      /soma\.deploy\.deny_registry: Pod \S+ image registry\.example\.com\/x:1 of container probe is from an unknown registry/,
      (container) => {
        container.image = 'registry.example.com/x:1';
      },
    ],
    [
      'an image without a fixed tag',
      /soma\.deploy\.deny_tag/,
      (container) => {
        container.image = 'localhost:5000/somagent/node:latest';
      },
    ],
    [
      'a container without limits',
      /soma\.deploy\.deny_unlimited: Pod \S+ container probe lacks resources\.limits\.memory/,
      (container) => {
        container.resources = {};
      },
    ],
  ];
  for (const [what, words, change] of refused) {
    it(`refuses ${what} in the words of the rule`, async () => {
      await assert.rejects(offer(pod(change)), (error: { stderr: string }) => {
        assert.match(error.stderr, /admission webhook "deploy\.policy\.somagent\.dev" denied the request/);
        assert.match(error.stderr, words);
        return true;
      });
    });
  }

  it('refuses a privileged pod; the pod security standard does so as well', async () => {
    const privileged = pod((container) => {
      container.securityContext = { privileged: true };
    });
    await assert.rejects(offer(privileged), (error: { stderr: string }) => /forbidden|denied/i.test(error.stderr));
  });

  it('does not judge its own plane, which must be able to start without it', async () => {
    const writable = pod((container) => {
      container.securityContext.readOnlyRootFilesystem = false;
    }, 'local-system');
    assert.match(await offer(writable), /created \(server dry run\)/);
  });
});
