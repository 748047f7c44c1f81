import { Construct } from 'constructs';
import { instanceName } from '../core/labels.ts';
import { workloadAudience, workloadTokenPath } from '../core/pod.ts';
import type { ApiServerAddress, Endpoint, PodNetwork } from '../core/pod-network.ts';
import type { Resources } from '../core/quantity.ts';
import { type Plane, placeOf, planeNamespace } from '../core/region-chart.ts';
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
import type { Database } from '../postgres/database.ts';

const HTTPS = 8443;
const HEALTH = 8081;
/** Name of the service in audiences and in the paths of tokens. */
const TARGET = 'identity';
/** Client of the realm by which the service keeps accounts in Keycloak. */
const KEYCLOAK_CLIENT = 'somagent-identity';

/** Options of {@link Identity}. */
export interface IdentityProps extends Reachability {
  /** Image `somagent/identity`. */
  readonly image: string;
  /** Where the certificate is asked for. */
  readonly plan: SecretPlan;
  /** The database `identity`. */
  readonly database: Database;
  /** Where people's and clients' credentials live; its realm has the client `somagent-identity`. */
  readonly keycloak: Keycloak;
  /** Where events go: `kafka.user('identity')`. */
  readonly kafka: Connectable;
  /** Where policies come from: `policy.consumer()`. */
  readonly policy: Connectable;
  /** Where the Kubernetes API is: workloads are verified with its keys. @default anywhere, ports 443 and 6443 */
  readonly apiServer?: ApiServerAddress;
  /**
   * What tokens of people must name as audience.
   * @default 'somagent-gateway'
   */
  readonly audience?: string;
  /** Number of pods. @default 1 */
  readonly replicas?: number;
  /** Of each pod. @default 50m and 128Mi promised, 384Mi at most */
  readonly resources?: Resources;
}

/** Where Keycloak tells that a login has ended: `logoutUrl` of the Keycloak, which is constructed before. */
export const identityLogoutUrl = (region: string, instance = 'identity', plane: Plane = 'services'): string =>
  `https://${instance}.${planeNamespace(region, plane)}.svc:${HTTPS}/v1/backchannel-logout`;

/**
 * Tenants, people, API keys, training mode and the kill switch; and the control feed, by which every other service
 * knows within a second who is suspended, revoked or halted. A service is wired to it by naming it among its
 * `connections`: that admits its pods, gives them a token that says who they are, and puts them on the list of callers.
 */
export class Identity extends Construct implements Connectable, Endpoint {
  /** DNS name within the cluster. */
  readonly host: string;
  readonly port = HTTPS;
  /** Address within the cluster. */
  readonly url: string;
  readonly network: PodNetwork;
  readonly #instance: string;
  readonly #plan: SecretPlan;
  readonly #callers = new Set<string>();

  constructor(scope: Construct, id: string, props: IdentityProps) {
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
    // Logouts come the other way.
    props.keycloak.network.allowTo(this.network, [HTTPS]);
    if (props.exposure) this.network.allowFromAnywhere(HTTPS);
  }

  /** Admits the client, gives it address, authority and a token of its own, and puts it on the list of callers. */
  connect(client: PodNetwork): Connection {
    client.allowTo(this.network, [HTTPS]);
    this.#callers.add(client.workloadSubject());
    return {
      env: {
        IDENTITY_URL: this.url,
        IDENTITY_CA_FILE: '/secrets/ca/ca.crt',
        IDENTITY_TOKEN_FILE: workloadTokenPath(TARGET),
      },
      secrets: [{ path: '/secrets/ca', secret: this.#plan.authorityCertificate(client.namespace) }],
      workloadTokens: [{ target: TARGET }],
    };
  }

  #identity(component: string) {
    return { product: 'identity', instance: this.#instance, component };
  }

  #address({ exposure }: IdentityProps): ServiceAddress {
    return new ServiceAddress(this, 'address', {
      ...this.#identity('server'),
      name: this.#instance,
      ports: { https: HTTPS },
      selector: { 'app.kubernetes.io/instance': this.#instance, 'app.kubernetes.io/component': 'server' },
      ...(exposure && { nodePorts: { https: nodePort('exposure.nodePort', exposure.nodePort) } }),
    });
  }

  #migration({ image, database }: IdentityProps): JobWorkload {
    return new JobWorkload(this, 'migrate', {
      ...this.#identity('migrate'),
      image,
      command: ['node', '/app/main.js', 'migrate'],
      connections: [database],
      resources: { cpu: '50m', memory: '96Mi', memoryLimit: '256Mi' },
    });
  }

  #server(props: IdentityProps): DeploymentWorkload {
    const { namespace } = placeOf(this);
    return new DeploymentWorkload(this, 'server', {
      ...this.#identity('server'),
      name: this.#instance,
      image: props.image,
      command: ['node', '/app/main.js', 'serve'],
      connections: [
        props.database,
        props.kafka,
        props.policy,
        { connect: (network) => props.keycloak.workloadClient(KEYCLOAK_CLIENT, network) },
      ],
      env: this.#environment(props),
      ports: { https: HTTPS, health: HEALTH },
      secrets: [
        {
          path: '/secrets/identity-tls',
          secret: servingCertificate(
            props.plan,
            { instance: this.#instance, host: this.host, namespace: namespace },
            props,
          ),
        },
        { path: '/secrets/ca', secret: props.plan.authorityCertificate(namespace) },
      ],
      scratch: { '/var/cache/policy': '16Mi' },
      verifiesWorkloads: true,
      replicas: props.replicas ?? 1,
      resources: props.resources ?? { cpu: '50m', memory: '128Mi', memoryLimit: '384Mi' },
      // Clients of the feed go to another pod before this one ends.
      terminationGraceSeconds: 45,
      probes: {
        readiness: { scheme: 'http', port: HEALTH, path: '/readyz', periodSeconds: 3 },
        liveness: { scheme: 'http', port: HEALTH, path: '/healthz', periodSeconds: 10 },
      },
    });
  }

  #environment({ keycloak, audience = 'somagent-gateway' }: IdentityProps) {
    return {
      PORT: String(HTTPS),
      HEALTH_PORT: String(HEALTH),
      TLS_DIR: '/secrets/identity-tls',
      OIDC_ISSUER: keycloak.issuer,
      OIDC_JWKS_URL: keycloak.jwksUrl,
      OIDC_CA_FILE: '/secrets/ca/ca.crt',
      OIDC_AUDIENCE: audience,
      WORKLOAD_AUDIENCE: workloadAudience(TARGET),
      WORKLOAD_CALLERS: { late: () => [...this.#callers].sort().join(',') },
    };
  }
}
