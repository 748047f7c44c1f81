import assert from 'node:assert/strict';
import { test } from 'node:test';
import { image, type Manifest, mountsOf, TestRegion } from '../testing.ts';
import { Opa } from './opa.ts';

function opa() {
  const region = new TestRegion();
  const object = new Opa(region.chart('system'), 'opa', {
    image: image('opa'),
    bootstrapImage: image('bootstrap'),
    plan: region.plan,
    registries: ['registry.test'],
  });
  return { region, object };
}

const planOf = (region: TestRegion): Manifest =>
  JSON.parse(region.find('ConfigMap', 'opa-admission-plan').data['plan.json']);

test('the server has TLS and authorization, and knows the registry of its environment', () => {
  const { region } = opa();
  const server = region.find('Deployment', 'opa');
  const { command } = server.spec.template.spec.containers[0];
  assert.equal(command[command.indexOf('--authorization') + 1], 'basic');
  assert.equal(command[command.indexOf('--tls-cert-file') + 1], '/secrets/tls/tls.crt');
  assert.equal(mountsOf(server)['/secrets/tls'], 'opa-tls');
  const environment = region.find('ConfigMap', 'opa-environment');
  assert.deepEqual(JSON.parse(environment.data['environment.json']), { registries: ['registry.test'] });
});

test('the webhook fails closed for the region, but for its own plane', () => {
  const { region } = opa();
  const [webhook] = planOf(region).webhooks;
  assert.equal(webhook.failurePolicy, 'Fail');
  assert.deepEqual(webhook.namespaceSelector.matchExpressions, [
    { key: 'somagent.dev/region', operator: 'In', values: ['north'] },
    { key: 'kubernetes.io/metadata.name', operator: 'NotIn', values: ['north-system'] },
  ]);
  assert.deepEqual(webhook.clientConfig.service, {
    name: 'opa',
    namespace: 'north-system',
    path: '/v0/data/soma/deploy/admission/review',
    port: 8443,
  });
});

test('the stack makes an empty configuration, which a Job with a right to this one object fills', () => {
  const { region, object } = opa();
  const configuration = region.find('ValidatingWebhookConfiguration', object.configurationName);
  assert.equal(configuration.webhooks, undefined);
  assert.equal(configuration.metadata.namespace, undefined);
  assert.equal(planOf(region).configuration, object.configurationName);
  const role = region.find('ClusterRole', `${object.configurationName}-admission`);
  assert.equal(role.metadata.namespace, undefined);
  assert.deepEqual(role.rules, [
    {
      apiGroups: ['admissionregistration.k8s.io'],
      resources: ['validatingwebhookconfigurations'],
      resourceNames: [object.configurationName],
      verbs: ['get', 'patch'],
    },
  ]);
  const binding = region.find('ClusterRoleBinding', `${object.configurationName}-admission`);
  assert.deepEqual(binding.subjects, [{ kind: 'ServiceAccount', name: 'opa-admission', namespace: 'north-system' }]);
});
