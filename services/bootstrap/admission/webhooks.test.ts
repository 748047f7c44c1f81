import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { AdmissionregistrationV1Api, RbacAuthorizationV1Api } from '@kubernetes/client-node';
import { createAuthority } from '../secrets/certificates.ts';
import { apiServerProgram, startApiServer, type TestApiServer } from '../testing/api-server.ts';
import { admissionPlan, fillWebhooks } from './webhooks.ts';

const skip = existsSync(apiServerProgram()) ? false : `${apiServerProgram()} is not built: run make toolchain`;
const plan = admissionPlan.parse({
  configuration: 'somagent-test',
  health: 'https://opa.test-system.svc:8443/health',
  webhooks: [
    {
      name: 'deploy.policy.somagent.dev',
      admissionReviewVersions: ['v1'],
      sideEffects: 'None',
      failurePolicy: 'Ignore',
      rules: [{ apiGroups: [''], apiVersions: ['v1'], resources: ['pods'], operations: ['CREATE'] }],
      clientConfig: { service: { name: 'opa', namespace: 'test-system', path: '/review', port: 8443 } },
    },
  ],
});

describe('webhooks on a real API server', { skip }, () => {
  let server: TestApiServer;
  let api: AdmissionregistrationV1Api;
  let authority: string;

  before(async () => {
    server = await startApiServer();
    api = server.admin.makeApiClient(AdmissionregistrationV1Api);
    authority = (await createAuthority('SomaGent test')).certificate;
    const rbac = server.admin.makeApiClient(RbacAuthorizationV1Api);
    const group = 'rbac.authorization.k8s.io';
    // What constructs/opa grants.
    await rbac.createClusterRole({
      body: {
        metadata: { name: 'admission' },
        rules: [
          {
            apiGroups: ['admissionregistration.k8s.io'],
            resources: ['validatingwebhookconfigurations'],
            resourceNames: ['somagent-test', 'somagent-absent'],
            verbs: ['get', 'patch'],
          },
        ],
      },
    });
    await rbac.createClusterRoleBinding({
      body: {
        metadata: { name: 'admission' },
        roleRef: { apiGroup: group, kind: 'ClusterRole', name: 'admission' },
        subjects: [{ apiGroup: group, kind: 'User', name: 'bootstrap' }],
      },
    });
    for (const name of ['somagent-test', 'somagent-other']) {
      await api.createValidatingWebhookConfiguration({ body: { metadata: { name } } });
    }
  });

  after(() => server.stop());

  it('get the authority, and nothing the second time', async () => {
    assert.equal(await fillWebhooks(server.bootstrap, plan, authority), true);
    const { webhooks = [] } = await api.readValidatingWebhookConfiguration({ name: 'somagent-test' });
    assert.equal(webhooks.length, 1);
    assert.equal(Buffer.from(webhooks[0]?.clientConfig.caBundle ?? '', 'base64').toString(), authority);
    assert.equal(webhooks[0]?.clientConfig.service?.path, '/review');
    assert.equal(await fillWebhooks(server.bootstrap, plan, authority), false);
  });

  it('get a renewed authority', async () => {
    const renewed = (await createAuthority('SomaGent test, renewed')).certificate;
    assert.equal(await fillWebhooks(server.bootstrap, plan, renewed), true);
    const { webhooks = [] } = await api.readValidatingWebhookConfiguration({ name: 'somagent-test' });
    assert.equal(Buffer.from(webhooks[0]?.clientConfig.caBundle ?? '', 'base64').toString(), renewed);
  });

  it('of another stack are out of reach, absent ones are named', async () => {
    await assert.rejects(fillWebhooks(server.bootstrap, { ...plan, configuration: 'somagent-other' }, authority), {
      message: 'ValidatingWebhookConfiguration somagent-other: not allowed to change it',
      fix: "grant get and patch on it to the Job's service account",
    });
    await assert.rejects(fillWebhooks(server.bootstrap, { ...plan, configuration: 'somagent-absent' }, authority), {
      message: 'ValidatingWebhookConfiguration somagent-absent is absent',
      fix: 'apply the stack: it creates the empty object',
    });
  });
});
