import { Construct } from 'constructs';
import { instanceName } from '../core/labels.ts';
import { MODELS_FILE, type ModelPrices, type ModelServer, modelsFile } from '../core/models-file.ts';
import type { PodNetwork } from '../core/pod-network.ts';
import type { Resources } from '../core/quantity.ts';
import { oneOf } from '../core/validate.ts';
import { type Connectable, DeploymentWorkload, JobWorkload } from '../core/workload.ts';
import { Policy } from '../policy/policy.ts';
import type { Database } from '../postgres/database.ts';
import type { Slm } from '../slm/slm.ts';
import type { Temporal } from '../temporal/temporal.ts';

const HEALTH = 8081;

/** Options of {@link Orchestrator}. */
export interface OrchestratorProps {
  /** Image `somagent/orchestrator`. */
  readonly image: string;
  /** Where its workflows run. */
  readonly temporal: Temporal;
  /** Where sessions are kept. */
  readonly database: Database;
  /** The models that answer. */
  readonly slm: Slm;
  /** Which of them answers sessions. @default the first */
  readonly sessionModel?: string;
  /** By model. @default what running a model of one's own costs, roughly */
  readonly modelPrices?: Readonly<Record<string, ModelPrices>>;
  /** Where events go: `kafka.user('orchestrator')`. */
  readonly kafka: Connectable;
  /** What decides on each step: `policy.consumer()`. */
  readonly policy: Connectable;
  /** Who says what is halted and suspended: the identity service, asked with a workload token. */
  readonly identity: Connectable;
  /** What agents remember: the memory gateway. @default there is no memory */
  readonly memory?: Connectable;
  /**
   * Task queue of the sessions.
   * @default 'sessions'
   */
  readonly taskQueue?: string;
  /** Number of workers. @default 1 */
  readonly replicas?: number;
  /** Leaves the number of workers to a Scaler. @default false */
  readonly scaled?: boolean;
  /** Of each worker. @default 100m and 256Mi promised, 640Mi at most */
  readonly resources?: Resources;
}

/** The Temporal worker that runs sessions, and the migrations of their database. */
export class Orchestrator extends Construct {
  readonly network: PodNetwork;
  /** Task queue of the sessions: gateways start workflows on it. */
  readonly taskQueue: string;
  /** Name and namespace of the Deployment of the workers. */
  readonly deployment: { readonly name: string; readonly namespace: string };

  constructor(scope: Construct, id: string, props: OrchestratorProps) {
    super(scope, id);
    const instance = instanceName(this);
    this.taskQueue = props.taskQueue ?? 'sessions';
    const identity = (component: string) => ({ product: 'orchestrator', instance, component });
    const migration = new JobWorkload(this, 'migrate', {
      ...identity('migrate'),
      image: props.image,
      command: ['node', '/app/main.js', 'migrate'],
      connections: [props.database],
      resources: { cpu: '50m', memory: '96Mi', memoryLimit: '256Mi' },
    });
    const worker = new DeploymentWorkload(this, 'worker', {
      ...identity('worker'),
      name: instance,
      image: props.image,
      command: ['node', '/app/main.js', 'worker'],
      connections: [
        ...[props.temporal, props.database, props.slm, props.kafka, props.policy, props.identity],
        ...(props.memory ? [props.memory] : []),
      ],
      files: [modelsFile(this, identity('worker'), [serverOf(props.slm)], props.modelPrices)],
      scratch: Policy.cache,
      env: {
        TASK_QUEUE: this.taskQueue,
        HEALTH_PORT: String(HEALTH),
        MODELS_FILE,
        SESSION_MODEL: oneOf('sessionModel', props.sessionModel ?? props.slm.model, props.slm.models),
      },
      ports: { health: HEALTH },
      replicas: props.replicas ?? 1,
      ...(props.scaled && { scaled: true }),
      resources: props.resources ?? { cpu: '100m', memory: '256Mi', memoryLimit: '640Mi' },
      // Running activities finish or hand their work back before the pod goes.
      terminationGraceSeconds: 60,
      probes: {
        readiness: { scheme: 'http', port: HEALTH, path: '/readyz' },
        liveness: { scheme: 'http', port: HEALTH, path: '/healthz', periodSeconds: 10 },
      },
    });
    worker.node.addDependency(migration);
    this.network = worker.network;
    this.deployment = { name: worker.name, namespace: worker.namespace };
  }
}

const serverOf = ({ url, models }: Slm): ModelServer => ({
  ...{ name: 'slm', kind: 'slm', url, target: 'slm', modelKind: 'chat', models },
});
