import assert from 'node:assert/strict';
import { test } from 'node:test';
import { environmentOf, image, mountsOf, slmOf, TestRegion } from '../testing.ts';
import { Slm } from './slm.ts';

test('the Service is in front of the head, whichever renderer made it', () => {
  for (const renderer of ['pods', 'kuberay'] as const) {
    const region = new TestRegion();
    const slm = new Slm(region.chart('runtime'), 'slm', { image: image('ray-slm'), plan: region.plan, renderer });
    assert.equal(slm.url, 'https://slm.north-runtime.svc:8000/v1');
    assert.deepEqual(region.find('Service', 'slm').spec.selector, {
      'app.kubernetes.io/instance': 'slm',
      'app.kubernetes.io/component': 'head',
    });
  }
});

test('the head has the model, the key and the certificate', () => {
  const region = new TestRegion();
  slmOf(region);
  const head = region.find('Deployment', 'slm-head');
  const env = environmentOf(head);
  assert.equal(env.SLM_MODEL_PATH, '/models/bundled.gguf');
  assert.equal(env.SLM_MODEL_NAME, 'soma-tiny');
  assert.equal(env.SLM_API_KEY_FILE, '/secrets/slm-api-key/token');
  assert.equal(mountsOf(head)['/secrets/slm-api-key'], 'slm-api-key');
  assert.equal(mountsOf(head)['/secrets/slm-tls'], 'slm-tls');
  assert.deepEqual(head.spec.template.spec.containers[0].readinessProbe.httpGet, {
    scheme: 'HTTPS',
    port: 8000,
    path: '/healthz',
  });
});

test('a wrong number of slots says what to do', () => {
  const region = new TestRegion();
  assert.throws(
    () => new Slm(region.chart('runtime'), 'slm', { image: image('ray-slm'), plan: region.plan, slots: 65 }),
    { message: 'slots is 65; allowed: a whole number from 1 to 64. Use for instance 64.' },
  );
});
