import { Construct } from 'constructs';
import { instanceName } from '../core/labels.ts';
import { workloadAudience, workloadTokenPath } from '../core/pod.ts';
import type { ApiServerAddress, Endpoint, PodNetwork } from '../core/pod-network.ts';
import type { Resources } from '../core/quantity.ts';
import { placeOf } from '../core/region-chart.ts';
import type { SecretPlan } from '../core/secret-plan.ts';
import { type Reachability, servingCertificate } from '../core/serving-certificate.ts';
import { nodePort } from '../core/validate.ts';
import {
  type Connectable,
  type Connection,
  DeploymentWorkload,
  JobWorkload,
  ServiceAddress,
} from '../core/workload.ts';
import type { Keycloak } from '../keycloak/keycloak.ts';
import { Policy } from '../policy/policy.ts';
import type { Database } from '../postgres/database.ts';

const HTTPS = 8443;
const HEALTH = 8081;
/** Name of the service in audiences and in the paths of tokens. */
const TARGET = 'memory-gateway';

/** Options of {@link MemoryGateway}. */
export interface MemoryGatewayProps extends Reachability {
  /** Image `somagent/memory-gateway`. */
  readonly image: string;
  /** Where the certificate is asked for. */
  readonly plan: SecretPlan;
  /** The database `memory`: the source of truth. */
  readonly database: Database;
  /** Where vectors are: Qdrant. */
  readonly vectors: Connectable;
  /** What makes vectors: the embeddings worker. */
  readonly embeddings: Connectable;
  /** The model that summarizes. */
  readonly slm: Connectable;
  /** Who issues the tokens of people and agents. */
  readonly identity: Keycloak;
  /** Who says what is suspended, revoked and halted, and whom API keys stand for: the identity service. */
  readonly control: Connectable;
  /** Where policies come from: `policy.consumer()`. */
  readonly policy: Connectable;
  /** Who is asked for relations: `openfga.client()`. */
  readonly relations: Connectable;
  /** Where events and verdicts go: `kafka.user('memory-gateway')`. */
  readonly kafka: Connectable;
  /**
   * Tenants that are large enough for a collection of their own; all others share one.
   * @default none
   */
  readonly dedicatedTenants?: readonly string[];
  /** Where the Kubernetes API is: workloads are verified with its keys. @default anywhere, ports 443 and 6443 */
  readonly apiServer?: ApiServerAddress;
  /**
   * What tokens of people must name as audience.
   * @default 'somagent-gateway'
   */
  readonly audience?: string;
  /** Number of pods: any may serve, one at a time indexes. @default 1 */
  readonly replicas?: number;
  /** Of each pod. @default 30m and 128Mi promised, 384Mi at most */
  readonly resources?: Resources;
}

/**
 * What agents remember: store, recall, summarize, forget, export. Memories are in Postgres; vectors are derived from
 * them. A workload that acts for people is wired to it by naming it among its `connections`.
 */
export class MemoryGateway extends Construct implements Connectable, Endpoint {
  /** DNS name within the cluster. */
  readonly host: string;
  readonly port = HTTPS;
  /** Address within the cluster. */
  readonly url: string;
  readonly network: PodNetwork;
  readonly #instance: string;
  readonly #plan: SecretPlan;
  readonly #callers = new Set<string>();

  constructor(scope: Construct, id: string, props: MemoryGatewayProps) {
    super(scope, id);
    this.#instance = instanceName(this);
    this.#plan = props.plan;
    const address = this.#address(props);
    this.host = address.host;
    this.url = `https://${this.host}:${HTTPS}`;
    const migration = this.#migration(props);
    const server = this.#server(props);
    server.node.addDependency(migration);
    this.network = server.network;
    this.network.allowToApiServer(props.apiServer);
    this.network.allowTo(props.identity.network, [props.identity.port]);
    if (props.exposure) this.network.allowFromAnywhere(HTTPS);
  }

  /** Admits the client, gives it address, authority and a token of its own, and puts it on the list of callers. */
  connect(client: PodNetwork): Connection {
    client.allowTo(this.network, [HTTPS]);
    this.#callers.add(client.workloadSubject());
    return {
      env: {
        MEMORY_URL: this.url,
        MEMORY_CA_FILE: '/secrets/ca/ca.crt',
        MEMORY_TOKEN_FILE: workloadTokenPath(TARGET),
      },
      secrets: [{ path: '/secrets/ca', secret: this.#plan.authorityCertificate(client.namespace) }],
      workloadTokens: [{ target: TARGET }],
    };
  }

  #identity(component: string) {
    return { product: 'memory-gateway', instance: this.#instance, component };
  }

  #address({ exposure }: MemoryGatewayProps): ServiceAddress {
    return new ServiceAddress(this, 'address', {
      ...this.#identity('server'),
      name: this.#instance,
      ports: { https: HTTPS },
      selector: { 'app.kubernetes.io/instance': this.#instance, 'app.kubernetes.io/component': 'server' },
      ...(exposure && { nodePorts: { https: nodePort('exposure.nodePort', exposure.nodePort) } }),
    });
  }

  #migration({ image, database }: MemoryGatewayProps): JobWorkload {
    return new JobWorkload(this, 'migrate', {
      ...this.#identity('migrate'),
      image,
      command: ['node', '/app/main.js', 'migrate'],
      connections: [database],
      resources: { cpu: '30m', memory: '96Mi', memoryLimit: '256Mi' },
    });
  }

  #server(props: MemoryGatewayProps): DeploymentWorkload {
    const { database, vectors, embeddings, slm, control, policy, relations, kafka, plan } = props;
    const { namespace } = placeOf(this);
    return new DeploymentWorkload(this, 'server', {
      ...this.#identity('server'),
      name: this.#instance,
      image: props.image,
      command: ['node', '/app/main.js', 'serve'],
      connections: [database, vectors, embeddings, slm, control, policy, relations, kafka],
      scratch: Policy.cache,
      env: this.#environment(props),
      ports: { https: HTTPS, health: HEALTH },
      secrets: [
        {
          path: '/secrets/memory-gateway-tls',
          secret: servingCertificate(plan, { instance: this.#instance, host: this.host, namespace }, props),
        },
      ],
      verifiesWorkloads: true,
      replicas: props.replicas ?? 1,
      resources: props.resources ?? { cpu: '30m', memory: '128Mi', memoryLimit: '384Mi' },
      terminationGraceSeconds: 45,
      probes: {
        readiness: { scheme: 'http', port: HEALTH, path: '/readyz', periodSeconds: 3 },
        liveness: { scheme: 'http', port: HEALTH, path: '/healthz', periodSeconds: 10 },
      },
    });
  }

  #environment({ identity, audience = 'somagent-gateway', dedicatedTenants = [] }: MemoryGatewayProps) {
    return {
      PORT: String(HTTPS),
      HEALTH_PORT: String(HEALTH),
      TLS_DIR: '/secrets/memory-gateway-tls',
      OIDC_ISSUER: identity.issuer,
      OIDC_JWKS_URL: identity.jwksUrl,
      OIDC_CA_FILE: '/secrets/ca/ca.crt',
      OIDC_AUDIENCE: audience,
      ...(dedicatedTenants.length > 0 && { DEDICATED_TENANTS: dedicatedTenants.join(',') }),
      WORKLOAD_AUDIENCE: workloadAudience(TARGET),
      WORKLOAD_CALLERS: { late: () => [...this.#callers].sort().join(',') },
    };
  }
}
