import { k8s } from 'cdk8s-plus-33';
import { Construct } from 'constructs';
import { type Identity, objectLabels } from './labels.ts';
import { placeOf } from './region-chart.ts';

/** What a pod may do with which objects of the Kubernetes API. */
export interface Rule {
  /** @default '' (the core group) */
  readonly apiGroup?: string;
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
  /**
   * Names of the only objects it holds for; `create` and `list` can't be held to names.
   * @default every object of these resources
   */
  readonly resourceNames?: readonly string[];
}

/** Options of {@link ServiceIdentity}. */
export interface ServiceIdentityProps extends Identity {
  /** Name of the ServiceAccount, Roles and RoleBindings. */
  readonly name: string;
  /** The rights; a function of the namespace where they differ between namespaces. */
  readonly rules: readonly Rule[] | ((namespace: string) => readonly Rule[]);
  /** Namespaces in which the rules hold. @default its own */
  readonly namespaces?: readonly string[];
}

/** A ServiceAccount with rights in listed namespaces only; there is no ClusterRole. */
export class ServiceIdentity extends Construct {
  readonly name: string;

  constructor(scope: Construct, id: string, props: ServiceIdentityProps) {
    super(scope, id);
    this.name = props.name;
    const home = placeOf(this).namespace;
    const labels = objectLabels(this, props);
    new k8s.KubeServiceAccount(this, 'account', {
      metadata: { name: this.name, labels },
      automountServiceAccountToken: false,
    });
    const rulesIn = (namespace: string) => (typeof props.rules === 'function' ? props.rules(namespace) : props.rules);
    for (const namespace of props.namespaces ?? [home]) this.#grant(namespace, home, labels, rulesIn(namespace));
  }

  /** A Role without rules would be stored otherwise than it was written. */
  #grant(namespace: string, home: string, labels: Record<string, string>, rules: readonly Rule[]): void {
    if (rules.length === 0) return;
    const metadata = { name: this.name, namespace, labels };
    new k8s.KubeRole(this, `role-${namespace}`, {
      metadata,
      rules: rules.map(({ apiGroup = '', resources, verbs, resourceNames }) => ({
        apiGroups: [apiGroup],
        resources: [...resources],
        verbs: [...verbs],
        ...(resourceNames !== undefined && { resourceNames: [...resourceNames] }),
      })),
    });
    new k8s.KubeRoleBinding(this, `binding-${namespace}`, {
      metadata,
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: this.name },
      subjects: [{ kind: 'ServiceAccount', name: this.name, namespace: home }],
    });
  }
}
