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
import { Policy } from '../policy/policy.ts';
import type { Database } from '../postgres/database.ts';
import type { AuditWitness } from './witness.ts';

const HTTPS = 8443;
const HEALTH = 8081;

/** Options of {@link Audit}. */
export interface AuditProps extends Reachability {
  /** Image `somagent/audit`. */
  readonly image: string;
  /** Where its certificate and the key of the log are asked for. */
  readonly plan: SecretPlan;
  /** The database `audit`; {@link role} is one of its readers. */
  readonly database: Database;
  /**
   * The role that the service connects as. It may select and insert; the owner's migrations grant it no more.
   * @default 'audit_writer'
   */
  readonly role?: string;
  /** Who signs each checkpoint too. */
  readonly witness: AuditWitness;
  /** Who issues the tokens that it admits. */
  readonly identity: Keycloak;
  /** Who says what is suspended and revoked, and whom API keys stand for: the identity service. */
  readonly control: Connectable;
  /** Where policies come from: `policy.consumer()`. */
  readonly policy: Connectable;
  /** Where events come from: `kafka.user('audit')`. */
  readonly kafka: Connectable;
  /**
   * What tokens must name as audience.
   * @default 'somagent-gateway'
   */
  readonly audience?: string;
  /** Of the pod. @default 50m and 160Mi promised, 512Mi at most */
  readonly resources?: Resources;
}

/** The audit log: consumer of the audited topics, Merkle log on Postgres, checkpoints every second, API and export. */
export class Audit extends Construct implements Endpoint {
  /** DNS name within the cluster. */
  readonly host: string;
  readonly port = HTTPS;
  /** Address within the cluster. */
  readonly url: string;
  readonly network: PodNetwork;
  readonly #instance: string;
  readonly #role: string;

  constructor(scope: Construct, id: string, props: AuditProps) {
    super(scope, id);
    this.#instance = instanceName(this);
    this.#role = props.role ?? 'audit_writer';
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
    if (exposure) this.network.allowFromAnywhere(HTTPS);
  }

  #identity(component: string) {
    return { product: 'audit', instance: this.#instance, component };
  }

  #migration({ image, database }: AuditProps): JobWorkload {
    return new JobWorkload(this, 'migrate', {
      ...this.#identity('migrate'),
      image,
      command: ['node', '/app/main.js', 'migrate'],
      connections: [database],
      env: { AUDIT_ROLE: this.#role },
      resources: { cpu: '50m', memory: '96Mi', memoryLimit: '256Mi' },
    });
  }

  #server(props: AuditProps): DeploymentWorkload {
    const { database, witness, control, policy, kafka, plan } = props;
    const { namespace } = placeOf(this);
    return new DeploymentWorkload(this, 'server', {
      ...this.#identity('server'),
      name: this.#instance,
      image: props.image,
      command: ['node', '/app/main.js', 'serve'],
      connections: [database.reader(this.#role), witness, control, policy, kafka],
      scratch: Policy.cache,
      env: environment(props),
      ports: { https: HTTPS, health: HEALTH },
      secrets: [
        {
          path: '/secrets/audit-tls',
          secret: servingCertificate(
            props.plan,
            { instance: this.#instance, host: this.host, namespace: namespace },
            props,
          ),
        },
        { path: '/secrets/log-key', secret: plan.signingKey(witness.logKey, 'Ed25519', namespace) },
      ],
      replicas: 1,
      // A second writer is refused by the database: it would only get in the way.
      strategy: 'Recreate',
      resources: props.resources ?? { cpu: '50m', memory: '160Mi', memoryLimit: '512Mi' },
      terminationGraceSeconds: 45,
      probes: {
        readiness: { scheme: 'http', port: HEALTH, path: '/readyz', periodSeconds: 3 },
        liveness: { scheme: 'http', port: HEALTH, path: '/healthz', periodSeconds: 10 },
      },
    });
  }
}

function environment({ identity, audience = 'somagent-gateway' }: AuditProps) {
  return {
    PORT: String(HTTPS),
    HEALTH_PORT: String(HEALTH),
    TLS_DIR: '/secrets/audit-tls',
    LOG_KEY_FILE: '/secrets/log-key/private.pem',
    OIDC_ISSUER: identity.issuer,
    OIDC_JWKS_URL: identity.jwksUrl,
    OIDC_CA_FILE: '/secrets/ca/ca.crt',
    OIDC_AUDIENCE: audience,
  };
}
