import { Construct } from 'constructs';
import { instanceName } from '../core/labels.ts';
import type { PodNetwork } from '../core/pod-network.ts';
import type { Resources } from '../core/quantity.ts';
import { integerBetween } from '../core/validate.ts';
import { type Connectable, DeploymentWorkload } from '../core/workload.ts';

const HEALTH = 8081;

/** Options of {@link Relations}. */
export interface RelationsProps {
  /** Image `somagent/relations`. */
  readonly image: string;
  /** Where relations are kept: `openfga.client()`. */
  readonly openfga: Connectable;
  /** Where changes are heard and repairs recorded: `kafka.user('relations')`. */
  readonly kafka: Connectable;
  /** Who owns each session: the database `sessions` as its reader `sessions_relations`. */
  readonly sessions: Connectable;
  /** Where tenants, teams and accounts are: the identity service, asked with a workload token. */
  readonly identity: Connectable;
  /**
   * Seconds between two reconciliations of everything.
   * @default 300
   */
  readonly reconcileSeconds?: number;
  /** Of the pod. @default 30m and 96Mi promised, 256Mi at most */
  readonly resources?: Resources;
}

/** The worker that keeps OpenFGA as its sources are: one pod, because each event is applied once and in order. */
export class Relations extends Construct {
  readonly network: PodNetwork;

  constructor(scope: Construct, id: string, props: RelationsProps) {
    super(scope, id);
    const instance = instanceName(this);
    const seconds = integerBetween('reconcileSeconds', props.reconcileSeconds ?? 300, 5, 86_400);
    const worker = new DeploymentWorkload(this, 'worker', {
      product: 'relations',
      instance,
      component: 'worker',
      name: instance,
      image: props.image,
      command: ['node', '/app/main.js', 'worker'],
      connections: [props.openfga, props.kafka, props.sessions, props.identity],
      env: { HEALTH_PORT: String(HEALTH), RECONCILE_SECONDS: String(seconds) },
      ports: { health: HEALTH },
      strategy: 'Recreate',
      resources: props.resources ?? { cpu: '30m', memory: '96Mi', memoryLimit: '256Mi' },
      probes: {
        readiness: { scheme: 'http', port: HEALTH, path: '/readyz' },
        liveness: { scheme: 'http', port: HEALTH, path: '/healthz', periodSeconds: 15 },
      },
    });
    this.network = worker.network;
  }
}
