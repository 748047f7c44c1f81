import { Construct } from 'constructs';
import { instanceName } from '../core/labels.ts';
import type { Endpoint, PodNetwork } from '../core/pod-network.ts';
import type { Resources } from '../core/quantity.ts';
import { placeOf } from '../core/region-chart.ts';
import type { SecretPlan } from '../core/secret-plan.ts';
import { type Reachability, servingCertificate } from '../core/serving-certificate.ts';
import { nodePort } from '../core/validate.ts';
import { type Connectable, DeploymentWorkload, JobWorkload, ServiceAddress } from '../core/workload.ts';
import type { Keycloak } from '../keycloak/keycloak.ts';
import type { ObjectStore } from '../object-store/object-store.ts';
import { Policy } from '../policy/policy.ts';
import type { Database } from '../postgres/database.ts';
import { LINEAGE_KEY, modelsBucket } from './models.ts';

const HTTPS = 8443;
const HEALTH = 8081;
const USER = 'training';
/** Reader of the database `sessions`, as the orchestrator's migrations know it. */
const READER = 'sessions_training';

/** Options of {@link Training}. */
export interface TrainingProps extends Reachability {
  /** Image `somagent/training`. */
  readonly image: string;
  /** Where its certificate and the key of lineages are asked for. */
  readonly plan: SecretPlan;
  /** The database `training`. */
  readonly database: Database;
  /** The database `sessions`, of which `sessions_training` is a reader. */
  readonly sessions: Database;
  /** Where models go: a store with {@link modelsBucket}. */
  readonly store: ObjectStore;
  /** Who issues the tokens that it admits. */
  readonly identity: Keycloak;
  /** Who says what is locked, halted, suspended and revoked: the identity service. */
  readonly control: Connectable;
  /** Where policies come from: `policy.consumer()`. */
  readonly policy: Connectable;
  /** Where events go: `kafka.user('training')`. */
  readonly kafka: Connectable;
  /** What tokens must name as audience. @default 'somagent-gateway' */
  readonly audience?: string;
  /** Of the pod: a run takes most of the limit. @default 25m and 128Mi promised, 2Gi at most */
  readonly resources?: Resources;
}

/** Training mode: approvals, runs as Ray jobs, gate, lineage and promotion. */
export class Training extends Construct implements Endpoint {
  /** DNS name within the cluster. */
  readonly host: string;
  readonly port = HTTPS;
  /** Address within the cluster. */
  readonly url: string;
  readonly network: PodNetwork;
  readonly #instance: string;

  constructor(scope: Construct, id: string, props: TrainingProps) {
    super(scope, id);
    this.#instance = instanceName(this);
    const { exposure } = props;
    const address = new ServiceAddress(this, 'address', {
      ...this.#identity('server'),
      name: this.#instance,
      ports: { https: HTTPS },
      selector: { 'app.kubernetes.io/instance': this.#instance, 'app.kubernetes.io/component': 'server' },
      ...(exposure && { nodePorts: { https: nodePort('exposure.nodePort', exposure.nodePort) } }),
    });
    this.host = address.host;
    this.url = `https://${this.host}:${HTTPS}`;
    const migration = this.#migration(props);
    const server = this.#server(props);
    server.node.addDependency(migration);
    this.network = server.network;
    this.network.allowTo(props.identity.network, [props.identity.port]);
    this.network.allowTo(props.sessions.network, [props.sessions.port]);
    if (exposure) this.network.allowFromAnywhere(HTTPS);
  }

  #identity(component: string) {
    return { product: 'training', instance: this.#instance, component };
  }

  #migration({ image, database }: TrainingProps): JobWorkload {
    return new JobWorkload(this, 'migrate', {
      ...this.#identity('migrate'),
      image,
      command: ['node', '/app/main.js', 'migrate'],
      connections: [database],
      resources: { cpu: '50m', memory: '96Mi', memoryLimit: '256Mi' },
    });
  }

  #server(props: TrainingProps): DeploymentWorkload {
    const { plan, database, sessions, store, control, policy, kafka } = props;
    const { namespace } = placeOf(this);
    const place = { instance: this.#instance, host: this.host, namespace };
    return new DeploymentWorkload(this, 'server', {
      ...this.#identity('server'),
      name: this.#instance,
      image: props.image,
      command: ['node', '/app/main.js', 'serve'],
      connections: [database, store.bucketUser(modelsBucket.name, USER), control, policy, kafka],
      env: environment(props),
      // The files of a run and of its Ray, which keeps its objects in memory.
      scratch: { ...Policy.cache, '/tmp': '1Gi', '/dev/shm': '128Mi' },
      ports: { https: HTTPS, health: HEALTH },
      secrets: [
        { path: '/secrets/training-tls', secret: servingCertificate(plan, place, props) },
        { path: '/secrets/lineage-key', secret: plan.signingKey(LINEAGE_KEY, 'Ed25519', namespace) },
        { path: '/secrets/sessions', secret: sessions.credentials(namespace, READER) },
      ],
      replicas: 1,
      // A second one would take up the run of the first.
      strategy: 'Recreate',
      resources: props.resources ?? { cpu: '25m', memory: '128Mi', memoryLimit: '2Gi' },
      terminationGraceSeconds: 60,
      probes: {
        readiness: { scheme: 'http', port: HEALTH, path: '/readyz', periodSeconds: 3 },
        // A run takes all the processor that there is.
        liveness: { scheme: 'http', port: HEALTH, path: '/healthz', periodSeconds: 15, failureThreshold: 4 },
      },
    });
  }
}

function environment({ identity, sessions, audience = 'somagent-gateway' }: TrainingProps) {
  return {
    PORT: String(HTTPS),
    HEALTH_PORT: String(HEALTH),
    TLS_DIR: '/secrets/training-tls',
    LINEAGE_KEY_FILE: '/secrets/lineage-key/private.pem',
    SESSIONS_DATABASE: sessions.name,
    SESSIONS_CREDENTIALS_DIR: '/secrets/sessions',
    OIDC_ISSUER: identity.issuer,
    OIDC_JWKS_URL: identity.jwksUrl,
    OIDC_CA_FILE: '/secrets/ca/ca.crt',
    OIDC_AUDIENCE: audience,
  };
}
