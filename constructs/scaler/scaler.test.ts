import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Orchestrator } from '../orchestrator/index.ts';
import {
  environmentOf,
  governanceOf,
  image,
  kafkaOf,
  keycloakOf,
  postgresOf,
  servicesOnKafka,
  slmOf,
  TestRegion,
  temporalOf,
} from '../testing.ts';
import { Scaler, type ScalerProps } from './index.ts';

function scaled(props: Partial<ScalerProps> = {}): TestRegion {
  const region = new TestRegion();
  const postgres = postgresOf(region);
  const temporal = temporalOf(region, postgres);
  const kafka = kafkaOf(region, 'kafka', servicesOnKafka);
  const { control, policy } = governanceOf(region, postgres, keycloakOf(region, postgres), kafka);
  const slm = slmOf(region);
  const orchestrator = new Orchestrator(region.chart('services'), 'orchestrator', {
    image: image('orchestrator'),
    ...{ temporal, slm, policy, scaled: true },
    database: postgres.database('sessions'),
    kafka: kafka.user('orchestrator'),
    identity: control,
  });
  const { plan } = region;
  const own = { image: image('scaler'), ...{ plan, orchestrator, temporal, slm }, ...props };
  new Scaler(region.chart('services'), 'scaler', own);
  return region;
}

test('the Deployment of the workers says nothing of their number', () => {
  const { spec } = scaled().find('Deployment', 'orchestrator');
  assert.equal('replicas' in spec, false);
});

test('the scaler may change the size of that Deployment, and has no other right', () => {
  const region = scaled();
  assert.deepEqual(region.find('Role', 'scaler').rules, [
    {
      apiGroups: ['apps'],
      resources: ['deployments/scale'],
      resourceNames: ['orchestrator'],
      verbs: ['get', 'update'],
    },
  ]);
  assert.equal(region.manifests().filter(({ kind }) => kind === 'ClusterRole').length, 0);
  const scaler = region.find('Deployment', 'scaler');
  assert.equal(scaler.spec.template.spec.serviceAccountName, 'scaler');
  const env = environmentOf(scaler);
  assert.deepEqual(
    [env.DEPLOYMENT, env.DEPLOYMENT_NAMESPACE, env.TASK_QUEUE, env.MIN_REPLICAS, env.MAX_REPLICAS, env.DOWN_AFTER_MS],
    ['orchestrator', 'north-services', 'sessions', '1', '4', '60000'],
  );
  assert.match(
    String(environmentOf(region.find('Deployment', 'slm-head')).SLM_WORKLOAD_CALLERS),
    /system:serviceaccount:north-services:scaler/,
  );
});

test('for the operator: one ScaledObject on the same queue with the same limits, and no pod of ours', () => {
  const region = scaled({ renderer: 'keda', min: 2, max: 9, workPerReplica: 8 });
  const { spec } = region.find('ScaledObject', 'scaler');
  assert.deepEqual([spec.scaleTargetRef, spec.minReplicaCount, spec.maxReplicaCount], [{ name: 'orchestrator' }, 2, 9]);
  assert.deepEqual(spec.triggers, [
    {
      type: 'temporal',
      metadata: {
        endpoint: 'temporal-frontend.north-runtime.svc:7233',
        namespace: 'somagent',
        taskQueue: 'sessions',
        queueTypes: 'workflow,activity',
        targetQueueSize: '8',
        tlsServerName: 'temporal-frontend.north-runtime.svc',
      },
      authenticationRef: { name: 'scaler' },
    },
  ]);
  const authentication = region.find('TriggerAuthentication', 'scaler').spec.secretTargetRef;
  assert.deepEqual(
    authentication.map(({ parameter, name }: { parameter: string; name: string }) => [parameter, name]),
    ['ca', 'cert', 'key'].map((parameter) => [parameter, 'scaler-temporal-tls']),
  );
  assert.throws(() => region.find('Deployment', 'scaler'));
});

test('wrong props say what to do', () => {
  assert.throws(() => scaled({ min: 5, max: 4 }), {
    message: 'min is "5"; allowed: at most max, which is 4. Raise max or lower min.',
  });
  assert.throws(() => scaled({ max: 0 }), {
    message: 'max is 0; allowed: a whole number from 1 to 100. Use for instance 1.',
  });
});
