import { ApiObject } from 'cdk8s';
import { Construct } from 'constructs';
import { instanceName, objectLabels } from '../core/labels.ts';
import type { ApiServerAddress } from '../core/pod-network.ts';
import type { Resources } from '../core/quantity.ts';
import { placeOf } from '../core/region-chart.ts';
import type { SecretPlan } from '../core/secret-plan.ts';
import { ServiceIdentity } from '../core/service-identity.ts';
import { InvalidPropError, integerBetween, oneOf } from '../core/validate.ts';
import { type Connectable, DeploymentWorkload } from '../core/workload.ts';
import type { Orchestrator } from '../orchestrator/orchestrator.ts';
import type { Temporal } from '../temporal/temporal.ts';

const HEALTH = 8081;
const renderers = ['pods', 'keda'] as const;

/** `keda`: a ScaledObject for the operator. `pods`: a scaler of our own, where there is no operator. */
export type ScalerRenderer = (typeof renderers)[number];

/** Options of {@link Scaler}. */
export interface ScalerProps {
  /** Image `somagent/scaler`. */
  readonly image: string;
  /** Where KEDA's client certificate for Temporal is asked for. */
  readonly plan: SecretPlan;
  /** Whose workers are scaled. It must be constructed with `scaled: true`. */
  readonly orchestrator: Orchestrator;
  /** Whose task queue says what waits. */
  readonly temporal: Temporal;
  /** What the turns wait for: the model. */
  readonly slm: Connectable;
  /** @default 'pods' */
  readonly renderer?: ScalerRenderer;
  /** Fewest and most workers. @default 1 and 4 */
  readonly min?: number;
  readonly max?: number;
  /** Turns that one worker shall have at once. @default 16 */
  readonly workPerReplica?: number;
  /** How long fewer must have been enough before a worker goes, seconds. @default 60 */
  readonly downAfterSeconds?: number;
  /** Where the Kubernetes API is. @default anywhere, ports 443 and 6443 */
  readonly apiServer?: ApiServerAddress;
  /** Namespace of the KEDA operator, which is admitted to Temporal. @default 'keda' */
  readonly operatorNamespace?: string;
  /** Of the pod. @default 15m and 64Mi promised, 160Mi at most */
  readonly resources?: Resources;
}

/** Scales the workers of sessions by what waits for them. */
export class Scaler extends Construct {
  readonly #instance: string;
  readonly #limits: Record<'min' | 'max' | 'workPerReplica' | 'downAfterSeconds', number>;

  constructor(scope: Construct, id: string, props: ScalerProps) {
    super(scope, id);
    this.#instance = instanceName(this);
    this.#limits = limitsOf(props);
    if (oneOf('renderer', props.renderer ?? 'pods', renderers) === 'keda') this.#renderOperator(props);
    else this.#renderPod(props);
  }

  #identity() {
    return { product: 'scaler', instance: this.#instance, component: 'scaler' };
  }

  #renderPod({ image, orchestrator, temporal, slm, apiServer, resources }: ScalerProps): void {
    const { min, max, workPerReplica, downAfterSeconds } = this.#limits;
    const { name, namespace } = orchestrator.deployment;
    const identity = new ServiceIdentity(this, 'identity', {
      ...this.#identity(),
      name: this.#instance,
      namespaces: [namespace],
      // The size of one Deployment: neither its pods nor what runs in them.
      rules: [{ apiGroup: 'apps', resources: ['deployments/scale'], resourceNames: [name], verbs: ['get', 'update'] }],
    });
    const scaler = new DeploymentWorkload(this, 'scaler', {
      ...this.#identity(),
      image,
      command: ['node', '/app/main.js'],
      connections: [temporal, slm],
      serviceIdentity: identity,
      env: {
        TASK_QUEUE: orchestrator.taskQueue,
        HEALTH_PORT: String(HEALTH),
        DEPLOYMENT: name,
        DEPLOYMENT_NAMESPACE: namespace,
        MIN_REPLICAS: String(min),
        MAX_REPLICAS: String(max),
        WORK_PER_REPLICA: String(workPerReplica),
        DOWN_AFTER_MS: String(downAfterSeconds * 1000),
      },
      ports: { health: HEALTH },
      // Two would only refuse each other's writes.
      strategy: 'Recreate',
      resources: resources ?? { cpu: '15m', memory: '64Mi', memoryLimit: '160Mi' },
      probes: {
        readiness: { scheme: 'http', port: HEALTH, path: '/readyz' },
        liveness: { scheme: 'http', port: HEALTH, path: '/healthz', periodSeconds: 10 },
      },
    });
    scaler.network.allowToApiServer(apiServer);
    scaler.node.addDependency(identity);
  }

  /** Source: https://keda.sh/docs/2.22/scalers/temporal/ */
  #renderOperator({ plan, orchestrator, temporal, operatorNamespace = 'keda' }: ScalerProps): void {
    const { namespace } = placeOf(this);
    const labels = objectLabels(this, this.#identity());
    temporal.network.allowFromNamespace(operatorNamespace, [temporal.port]);
    const certificate = plan.certificate(
      `${this.#instance}-temporal-tls`,
      { commonName: this.#instance, dnsNames: [], ipAddresses: [], usages: ['client'] },
      namespace,
    );
    const file = (parameter: string, key: string) => ({ parameter, name: certificate.name, key });
    const authentication = new ApiObject(this, 'authentication', {
      apiVersion: 'keda.sh/v1alpha1',
      kind: 'TriggerAuthentication',
      metadata: { name: this.#instance, labels },
      spec: { secretTargetRef: [file('ca', 'ca.crt'), file('cert', 'tls.crt'), file('key', 'tls.key')] },
    });
    const { min, max, workPerReplica, downAfterSeconds } = this.#limits;
    const scaled = new ApiObject(this, 'scaled-object', {
      apiVersion: 'keda.sh/v1alpha1',
      kind: 'ScaledObject',
      metadata: { name: this.#instance, labels },
      spec: {
        scaleTargetRef: { name: orchestrator.deployment.name },
        minReplicaCount: min,
        maxReplicaCount: max,
        pollingInterval: 2,
        advanced: {
          horizontalPodAutoscalerConfig: {
            behavior: {
              scaleDown: {
                stabilizationWindowSeconds: downAfterSeconds,
                policies: [{ type: 'Pods', value: 1, periodSeconds: Math.max(1, Math.round(downAfterSeconds / 4)) }],
              },
            },
          },
        },
        triggers: [
          {
            type: 'temporal',
            metadata: {
              endpoint: `${temporal.host}:${temporal.port}`,
              namespace: temporal.workflowNamespace,
              taskQueue: orchestrator.taskQueue,
              queueTypes: 'workflow,activity',
              targetQueueSize: String(workPerReplica),
              tlsServerName: temporal.host,
            },
            authenticationRef: { name: this.#instance },
          },
        ],
      },
    });
    scaled.node.addDependency(authentication);
  }
}

function limitsOf({ min = 1, max = 4, workPerReplica = 16, downAfterSeconds = 60 }: ScalerProps) {
  const limits = {
    min: integerBetween('min', min, 1, 100),
    max: integerBetween('max', max, 1, 100),
    workPerReplica: integerBetween('workPerReplica', workPerReplica, 1, 1000),
    downAfterSeconds: integerBetween('downAfterSeconds', downAfterSeconds, 1, 3600),
  };
  if (min > max)
    throw new InvalidPropError('min', String(min), `at most max, which is ${max}`, 'Raise max or lower min.');
  return limits;
}
